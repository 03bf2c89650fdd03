"""Gradient memory that another process of the node can read, and nothing else can."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hpresil import native
from hpresil.comm import segments
from hpresil.comm.segments import NOWHERE, Name, Neighbours, home

BOTH = (torch.float32, torch.float64)

READER = """
import sys, torch
from hpresil.comm.segments import Name, Neighbours
name, like = Name(*map(int, sys.argv[1:6])), [torch.empty(32), torch.empty(16, dtype=torch.float64)]
neighbours = Neighbours()
assert neighbours.open([name])
print([flat.sum().item() for flat in neighbours.flats(name, like)])
"""


def test_another_process_reads_what_its_owner_wrote() -> None:
    flats = segments.allocate(BOTH, (32, 16))
    flats[0].fill_(2.0)
    flats[1].fill_(0.5)
    name = segments.name_of(flats)
    done = subprocess.run(
        [sys.executable, "-c", READER, *map(str, name)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[64.0, 8.0]", done.stderr


def test_what_its_owner_has_given_back_is_mapped_no_longer() -> None:
    """The owner lives: its process id alone does not tell, and a mapping keeps the memory."""
    neighbours = Neighbours()
    kept = segments.allocate(BOTH, (32, 16))
    for _ in range(20):
        retired = segments.allocate(BOTH, (32, 16))
        assert neighbours.open([segments.name_of(kept), segments.name_of(retired)])
        del retired
    assert len(neighbours) == 2, "the mappings of retired segments pile up"
    assert segments.name_of(kept) in neighbours


def test_two_nodes_of_a_job_are_two_homes_even_on_one_machine() -> None:
    alone = home()
    segments.stand_on("node1")
    first = home()
    segments.stand_on("node2")
    second = home()
    segments.stand_on("node1")
    again = home()
    segments.stand_on("")
    assert len({alone, first, second}) == 3
    assert (again, home()) == (first, alone)


def test_only_whole_segments_have_a_name() -> None:
    flats = segments.allocate(BOTH, (32, 16))
    assert segments.name_of(flats) != NOWHERE
    assert segments.name_of(flats[:1]) == NOWHERE
    assert segments.name_of([torch.zeros(32)]) == NOWHERE
    assert segments.name_of([]) == NOWHERE


def test_a_segment_is_given_back_with_its_last_tensor() -> None:
    flats = segments.allocate(BOTH, (32, 16))
    name = segments.name_of(flats)
    part = flats[0][3:5]
    del flats
    os.fstat(name.fd)
    part.zero_()
    del part
    assert not Neighbours().open([name])


OWNER = """
import sys, torch
from hpresil.comm import segments
flats = segments.allocate((torch.float32,), (32,))
print(*segments.name_of(flats), flush=True)
sys.stdin.read()
"""


def test_segments_of_a_process_that_is_gone_are_given_up_when_nothing_new_is_needed() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    theirs = Name(*map(int, owner.stdout.readline().split()))
    neighbours = Neighbours()
    assert neighbours.open([theirs])
    owner.communicate(timeout=60)
    flats = segments.allocate(BOTH, (32, 16))
    ours = segments.name_of(flats)
    assert neighbours.open([ours])
    assert theirs not in neighbours
    assert mapped(theirs), "the reduction that maps new ones does not wait for old ones to go"
    assert neighbours.open([ours])
    end = time.monotonic() + 10
    while mapped(theirs) and time.monotonic() < end:
        time.sleep(0.01)
    assert not mapped(theirs)
    assert mapped(ours)


def mapped(name: Name) -> bool:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return any("hpresil-gradient" in line and line.split()[4] == str(name.inode) for line in lines)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda name: NOWHERE,
        lambda name: name._replace(pid=2**22 + 1),
        lambda name: name._replace(inode=name.inode + 1),
        lambda name: name._replace(nbytes=name.nbytes - 64),
        lambda name: name._replace(fd=0),
        lambda name: name._replace(home=name.home + 1),
    ],
)
def test_what_is_not_that_segment_is_not_mapped(wrong) -> None:
    flats = segments.allocate(BOTH, (32, 16))
    name = segments.name_of(flats)
    neighbours = Neighbours()
    assert not neighbours.open([name, wrong(name)])
    assert neighbours.open([name])


def test_what_could_shrink_under_its_reader_is_not_mapped() -> None:
    fd = native.memfd("test-segments", 4096)
    name = Name(os.getpid(), fd, os.fstat(fd).st_ino, 4096, home())
    assert not Neighbours().open([name])
    native.seal(fd, shrink=True)
    assert Neighbours().open([name])
    os.close(fd)
