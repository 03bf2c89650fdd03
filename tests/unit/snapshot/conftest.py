"""Trainings of many kinds, snapshots that are closed, and frames in memory that is given back."""

import gc
import os
from dataclasses import replace

import pytest

from frame_memory import Memory
from hpresil.snapshot import filling
from hpresil.snapshot.snapshots import Snapshots
from hpresil.snapshot.state import State
from rigs import RIGS
from trainings import Training, tracked_training


@pytest.fixture(params=list(RIGS))
def build(request):
    """Builds one kind of training from a seed."""
    return RIGS[request.param]


@pytest.fixture
def rigs():
    """All kinds by name."""
    return RIGS


@pytest.fixture
def frozen():
    """Returns a copy of a captured state that no training changes any more."""

    def copy(state: State) -> State:
        return replace(state, tensors=[replace(e, tensor=e.tensor.clone()) for e in state.tensors])

    return copy


@pytest.fixture
def training():
    return Training()


@pytest.fixture
def taken(training):
    made = []

    def make(objects=None, **settings):
        made.append(Snapshots(objects or training.objects, **{"threads": 1, **settings}))
        return made[-1]

    yield make
    for one in made:
        one.close(remove=True)
    gc.collect()


@pytest.fixture
def memory():
    made = []

    def make(nbytes):
        made.append(Memory(nbytes))
        return made[-1]

    yield make
    gc.collect()
    for one in made:
        one.mapping.close()
        os.close(one.fd)


@pytest.fixture
def filled(memory):
    """A training and a sealed frame of it."""
    tracked = tracked_training()
    state = tracked.capture()
    made = memory(filling.size(state))
    filling.fill(made.mapping, state, version=7, generation=3)
    return tracked, made
