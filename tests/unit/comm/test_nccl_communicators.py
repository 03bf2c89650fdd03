"""The NCCL kind against a script in place of the library: ids, bulk, reasons, what crosses to the core."""

from __future__ import annotations

import threading

import pytest
import torch

from hpresil import native
from hpresil.base.errors import NativeError, PeerLost
from hpresil.comm.communicators import Operation, Wanted, transfer, warm
from hpresil.comm.nccl_communicators import NcclCommunicators
from hpresil.comm.transfer_plan import plan
from hpresil.comm.warming import Edge, plan as warming_plan

CPU = torch.device("cpu")


class ScriptedEnd:
    def __init__(self, spec):
        self.spec, self.reason, self.ran, self.fails = spec, "", [], False

    def run(self, groups, stream, what, seconds, wait=True):
        if self.fails:
            raise NativeError(f"communicator {self.spec[0]}: {what} failed: remote process exited")
        self.waited = wait
        self.ran.append(groups)

    def abort(self, reason, seconds):
        self.reason = self.reason or reason
        return True

    def close(self, seconds):
        return True


class ScriptedLibrary:
    def __init__(self):
        self.begun = []

    def begin(self, specs, device):
        self.begun.append((specs, device))
        self.ends = [ScriptedEnd(spec) for spec in specs]
        return self.ends


class World:
    """One store and one library for the ranks of a test."""

    def __init__(self):
        self.library, self.store, self.asked, self.minted = ScriptedLibrary(), {}, [], []

    def get(self, keys, seconds):
        self.asked.append(keys)
        return [self.store[key] for key in keys]

    def ids(self, generation, name, roots):
        self.minted.append((generation, name, roots))
        return [bytes([len(self.minted)]) * 128] * roots

    def rank(self, finish=lambda pending, seconds: None):
        return NcclCommunicators(
            self.library, CPU, ids=self.ids, set=self.store.__setitem__, get=self.get, finish=finish
        )


def test_rank_0_makes_the_ids_and_the_others_find_theirs_with_one_request() -> None:
    world = World()
    names = ("dp", "recovery")
    world.rank().init_many(3, [Wanted(name, 0, 2, roots=2) for name in names], 5.0)
    built = world.rank().init_many(3, [Wanted(name, 1, 2, roots=2) for name in names], 5.0)
    assert world.minted == [(3, "dp", 2), (3, "recovery", 2)]
    assert len(world.asked) == 1
    (first, _), (second, _) = world.library.begun
    assert [spec[:4] for spec in second] == [("dp", 3, 1, 2), ("recovery", 3, 1, 2)]
    assert [spec[4] for spec in first] == [spec[4] for spec in second]
    assert [len(spec[4]) for spec in second] == [2, 2]
    assert [(each.name, each.rank, each.size, each.generation) for each in built] == [
        ("dp", 1, 2, 3),
        ("recovery", 1, 2, 3),
    ]


def test_a_failed_initialisation_is_a_lost_peer_with_its_reason() -> None:
    def finish(pending, seconds):
        raise NativeError("communicator dp of generation 3, rank 0 of 2: remote process exited")

    with pytest.raises(PeerLost, match=r"rank 0 of generation 3: .*remote process exited"):
        World().rank(finish).init_many(3, [Wanted("dp", 0, 2)], 5.0)


def test_another_thread_gives_up_what_is_being_built() -> None:
    world, waiting, given_up = World(), threading.Event(), threading.Event()

    def finish(pending, seconds):
        waiting.set()
        assert given_up.wait(10.0)
        raise NativeError(pending[0].reason)

    makes = world.rank(finish)

    def give_up():
        assert waiting.wait(10.0)
        makes.abort("generation 4 came")
        given_up.set()

    other = threading.Thread(target=give_up)
    other.start()
    with pytest.raises(PeerLost, match="generation 4 came"):
        makes.init_many(3, [Wanted("dp", 0, 2), Wanted("tp", 0, 2)], 5.0)
    other.join(10.0)
    assert [end.reason for end in world.library.ends] == ["generation 4 came"] * 2


def test_pre_warming_crosses_as_addresses_and_bytes_of_one_share() -> None:
    world = World()
    (built,) = world.rank().init_many(3, [Wanted("dp", 0, 2)], 5.0)
    warm(built, warming_plan(2, 0, [Edge(0, 1, 100), Edge(1, 0, 200)], sums=(8, 64)), 5.0)
    (groups,) = built.native.ran
    assert [[(call[0], call[3], call[4]) for call in group] for group in groups] == [
        [("all_reduce", 8, -1)],
        [("all_reduce", 64, -1)],
        [("broadcast", 4096, 0)],
        [("reduce", 4096, 0)],
        [("all_gather", 4096, -1)],
        [("reduce_scatter", 4096, -1)],
        [("send", 100, 1), ("receive", 200, 1)],
    ]
    send, receive = groups[-1]
    assert send[1] != 0
    assert send[2] == 0
    assert receive[1] == 0
    assert receive[2] != 0


def test_a_transfer_crosses_as_groups_of_sends_and_receives_or_one_broadcast() -> None:
    world = World()
    built = world.rank().init_many(3, [Wanted("recovery", 0, 4)], 5.0)[0]
    state = torch.zeros(100, dtype=torch.uint8)
    whole = [(0, 100)]
    transfer(built, plan(4, {0: whole, 1: whole}, {3: whole}, chunk_bytes=50), state, 5.0)
    transfer(built, plan(4, {2: whole}, {0: whole, 1: whole, 3: whole}), state, 5.0)
    at = state.data_ptr()
    assert built.native.ran == [[[("send", at, 0, 50, 3)]], [[("broadcast", at, at, 100, 2)]]]


def test_a_peer_that_is_lost_while_it_runs_is_said_as_one() -> None:
    world = World()
    world.store["communicators/dp/ids"] = b"x" * 128
    (built,) = world.rank().init_many(3, [Wanted("dp", 1, 2)], 5.0)
    built.native.fails = True
    with pytest.raises(PeerLost, match=r"rank 1 of generation 3: .*pre-warming failed"):
        warm(built, warming_plan(2, 1), 5.0)
    built.abort("first")
    built.abort("second")
    assert built.reason == "first"


def test_without_nccl_the_error_says_what_to_do() -> None:
    with pytest.raises(NativeError, match=r"NCCL is not here .*install a CUDA build of torch.*gloo"):
        native.Nccl.open("libnccl-that-is-not-there.so.2")


def test_what_is_enqueued_is_not_waited_for() -> None:
    (built,) = World().rank().init_many(1, [Wanted("dp", 0, 1)], 5.0)
    values = torch.zeros(4, dtype=torch.uint8)
    built.run([[Operation("all_reduce", values, values)]], "a sum", 1.0)
    assert built.native.waited
    built.enqueue([[Operation("all_reduce", values, values)]], "a sum in a graph", 1.0)
    assert not built.native.waited
    assert len(built.native.ran) == 2
