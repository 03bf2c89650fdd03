"""Device memory that outlives a worker, with host memory for the device's and everything else for real."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from device_holders import (
    END_S,
    HOST,
    NAMES,
    ROUNDS,
    answering,
    at,
    holds,
    open_files,
    until,
    worker,
)
from hpresil.base.errors import (
    ConfigError,
    DeadlineExceeded,
    GenerationChanged,
    TransferFailed,
    UsageError,
)
from hpresil.launch import device_holder
from hpresil.snapshot import HeldPlace, held_messages as m

# ------------------------------------------------------------------ a worker that dies


@pytest.mark.parametrize("point", ["allocated", "changed", "parameters written", "optimizer written"])
def test_what_was_half_written_when_a_worker_died_is_not_taken_for_whole(path, holder, point):
    with worker(path, point=point) as dead:
        assert dead.wait(END_S) == -signal.SIGKILL
    with at(path) as place:
        with pytest.raises(TransferFailed, match="not sealed: its writer has not finished or died"):
            place.open_sealed(NAMES)
        memory = {name: place.open(name) for name in NAMES}
        place.seal(77, memory)
        assert place.open_sealed(NAMES).version == 77, "it can be filled anew"


def test_what_a_dead_worker_has_sealed_is_mapped_by_the_next_one(path, holder):
    with worker(path, point="sealed") as dead:
        assert dead.wait(END_S) == -signal.SIGKILL
    with at(path) as place:
        found = place.open_sealed(NAMES, 1002)
        assert holds(found.memory, 1002)
        assert {row.generation for row in place.rows()} == {1}
        with pytest.raises(TransferFailed, match="holds version 1002, not 1003"):
            place.open_sealed(NAMES, 1003)


def test_kills_at_random_moments_leave_one_whole_version_or_none(path, holder):
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}")
    chance, files, whole = random.Random(seed), 0, 0
    for generation in range(1, ROUNDS + 1):
        with worker(path, generation) as killed, at(path, place=0) as other:

            def seals(other=other, least=generation * 1000):
                return any(row.version > least for row in other.rows())

            # A worker begins by checking what the one before it has left.
            assert until(seals), f"seed {seed}: worker {generation} found what its predecessor left torn"
            time.sleep(chance.random() * 0.02)
            killed.kill()
            killed.wait()
            versions = {row.version for row in other.rows()}
            assert len(versions) == 1, f"seed {seed}: two versions at once"
            whole += m.UNSEALED not in versions
            left = until(lambda files=files: open_files(holder.process.pid) <= (files or 1 << 20))
            assert left, f"seed {seed}: descriptors of a killed worker are left in the holder"
            files = files or open_files(holder.process.pid)
    print(f"{whole} of {ROUNDS} left a whole version")


# ------------------------------------------------------------------ whose place it is


def test_a_place_belongs_to_a_process_until_it_has_ended(path, holder):
    with worker(path) as stopped:
        with at(path, place=0) as other:
            assert until(lambda: len(other.rows()) == 2)
        stopped.send_signal(signal.SIGSTOP)
        busy = rf"place 1 belongs to process {stopped.pid}, for 1 s; end it with all its children"
        with pytest.raises(DeadlineExceeded, match=busy):
            HeldPlace(path, place=1, generation=9, device=HOST, timeout_s=1.0)
        stopped.kill()
        with at(path) as place:
            assert len(place.rows()) == 2


def test_an_older_generation_is_refused(path, holder):
    with at(path, generation=5) as older:
        with at(path, generation=6) as newer:
            newer.allocate("state", 1)
            with pytest.raises(GenerationChanged, match=r"not process .* of generation 5 any more"):
                older.seal(1, {"state": newer.open("state")})
            assert newer.rows()[0].version == m.UNSEALED
        with pytest.raises(GenerationChanged, match="place 1 is of generation 6 by now"):
            HeldPlace(path, place=1, generation=5, device=HOST)


def test_misuse_is_told(path, holder):
    with at(path) as place:
        memory = place.allocate("state", 100)
        with pytest.raises(UsageError, match="state is there already"):
            place.allocate("state", 100)
        place.seal(3, {"state": memory})
        with pytest.raises(UsageError, match="state is sealed; say that it changes before it does"):
            place.seal(4, {"state": memory})
        with pytest.raises(TransferFailed, match="holds nothing named other"):
            place.change(["state", "other"])
        assert place.open_sealed(["state"]).version == 3, "what is denied changes nothing"
        with pytest.raises(ConfigError, match=r"bytes are held, .* more are too many"):
            place.allocate("large", device_holder.HOST_BYTES)
        place.drop("state")
        assert place.rows() == ()
        memoryview(memory)[:3] = b"abc"  # dropped, and mapped here still


WRONG = [
    (lambda place, memory: place.allocate("layer 1", 10), r"Allocate .*matching regex .*`\$\.name`"),
    (lambda place, memory: place.allocate("x" * 65, 10), r"Allocate .*matching regex .*`\$\.name`"),
    (lambda place, memory: place.allocate("x", 0), r"Allocate .*`int` >= 1 - at `\$\.nbytes`"),
    (lambda place, memory: place.allocate("x", 2.5), r"Allocate .*`int`, got `float` - at `\$\.nbytes`"),
    (lambda place, memory: place.allocate("x", np.int64(1)), r"Allocate .*numpy.int64"),
    (lambda place, memory: place.allocate("x", 1 << 70), r"Allocate .*64"),
    (lambda place, memory: place.allocate("\udc80", 1), r"Allocate .*surrogates"),
    (lambda place, memory: place.open(""), r"Open .*matching regex .*`\$\.name`"),
    (lambda place, memory: place.drop("a b"), r"Drop .*matching regex .*`\$\.name`"),
    (lambda place, memory: place.change([]), r"Change .*length >= 1 - at `\$\.names`"),
    (lambda place, memory: place.change(["state"] * 300), r"Change .*length <= 256 - at `\$\.names`"),
    (lambda place, memory: place.seal(-1, {"state": memory}), r"Seal .*`int` >= 0 - at `\$\.version`"),
    (lambda place, memory: place.seal(1, {}), r"Seal .*length >= 1 - at `\$\.sums`"),
]


@pytest.mark.parametrize(("wrong", "told"), WRONG)
def test_a_value_that_cannot_be_is_told_before_the_holder_hears_of_it(path, inside, wrong, told):
    with answering(inside), at(path) as place:
        memory = place.allocate("state", 100)
        with pytest.raises(UsageError, match=f"place 1 at .* was not asked: {told}"):
            wrong(place, memory)
        place.seal(1, {"state": memory})
        assert [row.version for row in place.rows()] == [1], "the connection is open, and nothing has changed"
    assert not inside.refusals.counts


def test_a_place_or_generation_that_cannot_be_is_told(path, holder):
    with pytest.raises(UsageError, match=r"Attach .*`int` >= 0 - at `\$\.place`"):
        HeldPlace(path, place=-1, generation=0, device=HOST)
    with pytest.raises(UsageError, match=r"Attach .*`int` >= 0 - at `\$\.generation`"):
        HeldPlace(path, place=0, generation=-1, device=HOST)


def test_memory_that_was_written_to_after_its_seal_is_found_out(path, holder):
    with at(path) as place:
        memory = place.allocate("state", 4 << 20)
        place.seal(3, {"state": memory})
        memoryview(memory)[3 << 20] ^= 1
        with pytest.raises(TransferFailed, match="has not the checksum that version 3 was sealed with"):
            place.open_sealed(["state"])


def test_threads_of_a_worker_share_its_place(path, holder):
    failed = []

    def work(place, name):
        try:
            memory = {name: place.allocate(name, 1000)}
            for version in range(50):
                place.change([name])
                place.seal(version, memory)
            assert place.open_sealed([name]).version == 49
        except BaseException as error:
            failed.append(error)

    with at(path) as place:
        threads = [threading.Thread(target=work, args=(place, f"state-{i}")) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(END_S)
    assert not failed


# ------------------------------------------------------------------ a holder that dies


def test_a_holder_that_is_killed_leaves_workers_their_memory_and_a_clear_error(path, holder):
    files = open_files("self")
    with at(path) as place:
        memory = place.allocate("state", 100)
        memoryview(memory)[:3] = b"abc"
        holder.process.kill()
        holder.process.wait()
        with pytest.raises(TransferFailed, match=r"nobody keeps it beyond this process; start another"):
            place.seal(1, {"state": memory})
        assert bytes(memoryview(memory)[:3]) == b"abc"
        with pytest.raises(TransferFailed, match=r"cannot be reached.*start the holder first"):
            HeldPlace(path, place=1, generation=9, device=HOST)
        with contextlib.closing(device_holder.start(path, HOST)), at(path) as again:
            assert again.rows() == ()
    assert open_files("self") == files


def test_a_holder_that_does_not_answer_is_waited_for_no_longer_than_was_said(path, holder):
    with at(path, timeout_s=1.5) as place:
        holder.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(DeadlineExceeded, match=r"to Allocate did not come within 1\.5 s"):
                place.allocate("state", 100)
            with pytest.raises(TransferFailed, match="is gone"):
                place.rows()
        finally:
            holder.process.send_signal(signal.SIGCONT)


def test_a_holder_dies_with_its_parent(path):
    script = (
        "import sys, time; from pathlib import Path; from hpresil.launch import device_holder\n"
        "print(device_holder.start(Path(sys.argv[1]), -1).process.pid, flush=True); time.sleep(100)"
    )
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        parent.kill()

    def gone():
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
        except OSError:
            return True

    assert until(gone)


def test_a_second_holder_and_a_device_that_is_not_there_are_refused(path, holder):
    with pytest.raises(ConfigError, match="there is a device holder at"):
        device_holder.start(path, HOST)
    with pytest.raises(ConfigError, match="memory of device 99 cannot be held"):
        device_holder.start(path.with_name("other"), 99)
