"""Recorder: every step once and in order, contradictions refused, continued after a resume."""

import errno
import json
import os
import random

import pytest

from hpresil.base.errors import DataError, Divergence
from hpresil.membership.messages import Committed
from hpresil.telemetry import recorder as writing
from hpresil.telemetry.record import read
from hpresil.telemetry.recorder import Recorder


def committed(step, **changes):
    fields = {
        "generation": 1,
        "step": step,
        "loss": (2.5 / (step + 1)).hex(),
        "grad_norm": (0.1 * step).hex(),
        "samples": f"{step:032x}",
        "state": "",
        "world_size": 2,
    }
    return Committed(**(fields | changes))


def written(path, steps, **changes):
    recorder = Recorder(path)
    for step in steps:
        recorder.add(0, committed(step, **changes), now=float(step))
    recorder.close()
    return path


def steps_of(path):
    return [line.step for line in read(path)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "record.jsonl"


@pytest.fixture
def recorder(path):
    recorder = Recorder(path)
    yield recorder
    recorder.close()


def test_a_step_is_one_json_line_with_its_fields_in_order(path, recorder):
    recorder.add(3, committed(0, state="ab", generation=4), now=12.25)
    (line,) = path.read_text().splitlines()
    assert list(json.loads(line).items()) == [
        ("step", 0),
        ("loss", "0x1.4000000000000p+1"),
        ("grad_norm", "0x0.0p+0"),
        ("state", "ab"),
        ("samples", "0" * 32),
        ("generation", 4),
        ("world_size", 2),
        ("time", 12.25),
    ]


def test_the_first_report_of_a_step_counts_and_equal_ones_are_ignored(path, recorder):
    assert recorder.add(0, committed(0, generation=1, world_size=2), now=1.0)
    assert not recorder.add(1, committed(0, generation=2, world_size=1), now=2.0)
    (line,) = read(path)
    assert (line.generation, line.world_size, line.time) == (1, 2, 1.0)


@pytest.mark.parametrize("field", ["loss", "grad_norm"])
def test_a_differing_report_names_step_field_both_values_and_both_workers(path, recorder, field):
    recorder.add(0, committed(0, **{field: (0.1).hex()}), now=0.0)
    with pytest.raises(Divergence) as caught:
        recorder.add(7, committed(0, generation=2, **{field: (0.1 + 2**-56).hex()}), now=0.0)
    for part in (
        f"step 0: {field}",
        "0x1.999999999999ap-4 (0.1)",
        "0x1.999999999999bp-4 (0.10000000000000002)",
    ):
        assert part in str(caught.value)
    assert "by worker 0 (generation 1)" in str(caught.value)
    assert "by worker 7 (generation 2)" in str(caught.value)
    assert steps_of(path) == [0]


def test_differing_samples_and_states_diverge_but_a_missing_state_does_not(recorder):
    recorder.add(0, committed(0, state="aa"), now=0.0)
    assert not recorder.add(1, committed(0, state=""), now=0.0)
    with pytest.raises(Divergence, match=r"state is aa by worker 0 .* but bb by worker 1"):
        recorder.add(1, committed(0, state="bb"), now=0.0)
    with pytest.raises(Divergence, match="samples is"):
        recorder.add(1, committed(0, samples="f" * 32), now=0.0)


def test_reports_that_overtake_each_other_are_written_in_order(path):
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    reports = [(worker, step) for worker in range(3) for step in range(40)]
    random.Random(seed).shuffle(reports)
    recorder = Recorder(path)
    first = [recorder.add(worker, committed(step), now=0.0) for worker, step in reports]
    recorder.close()
    assert steps_of(path) == list(range(40))
    assert sum(first) == 40


def test_a_report_that_waits_for_its_turn_is_checked_too(recorder):
    recorder.add(0, committed(5), now=0.0)
    with pytest.raises(Divergence, match="step 5: loss"):
        recorder.add(1, committed(5, loss=(7.0).hex()), now=0.0)


def test_a_step_that_nobody_reports_is_an_error_at_last(recorder, monkeypatch):
    monkeypatch.setattr(writing, "EARLY_STEPS", 10)
    for step in range(1, 11):
        recorder.add(0, committed(step), now=0.0)
    with pytest.raises(DataError, match="nobody reported step 0, but 11 later steps"):
        recorder.add(0, committed(11), now=0.0)


def test_steps_that_are_made_again_are_checked_against_the_file(path, monkeypatch):
    monkeypatch.setattr(writing, "RECENT_STEPS", 4)
    recorder = Recorder(path)
    for step in range(30):
        recorder.add(0, committed(step), now=0.0)
    assert not any(recorder.add(1, committed(step), now=0.0) for step in range(30))
    with pytest.raises(Divergence, match=r"step 3: loss is .* by the record"):
        recorder.add(1, committed(3, loss=(7.0).hex()), now=0.0)
    recorder.close()
    assert steps_of(path) == list(range(30))


def test_every_line_is_readable_while_the_job_runs(path, recorder):
    for step in range(5):
        recorder.add(0, committed(step), now=0.0)
        assert steps_of(path) == list(range(step + 1))


def test_without_a_path_the_newest_steps_are_still_checked(monkeypatch):
    monkeypatch.setattr(writing, "RECENT_STEPS", 4)
    recorder = Recorder(None)
    assert all(recorder.add(0, committed(step), now=0.0) for step in range(10))
    assert not recorder.add(1, committed(8), now=0.0)
    with pytest.raises(Divergence):
        recorder.add(1, committed(8, loss=(7.0).hex()), now=0.0)
    assert not recorder.add(1, committed(2, loss=(7.0).hex()), now=0.0)
    recorder.close()


def test_a_new_job_replaces_an_older_record(path):
    written(path, range(9))
    assert steps_of(written(path, range(3))) == [0, 1, 2]


@pytest.mark.parametrize("text", ["import torch\n", "import torch", '{"weights": 1}'])
@pytest.mark.parametrize("resume_at", [0, 5])
def test_a_file_that_is_no_record_is_never_touched(path, text, resume_at):
    path.write_text(text)
    with pytest.raises(
        DataError, match=r"line 1: .*; choose another file for the record, or remove this one"
    ):
        Recorder(path, resume_at)
    assert path.read_text() == text


def test_a_resumed_job_continues_its_record(path):
    written(path, range(5))
    recorder = Recorder(path, resume_at=5)
    assert recorder.add(0, committed(5), now=9.0)
    recorder.close()
    assert steps_of(path) == list(range(6))


def test_lines_after_the_resumed_step_stay_and_are_checked(path):
    written(path, range(8))
    before = path.read_bytes()
    recorder = Recorder(path, resume_at=5)
    assert [recorder.add(0, committed(step), now=9.0) for step in (5, 6)] == [False, False]
    assert path.read_bytes() == before
    with pytest.raises(Divergence, match=r"step 7: loss is .* by the record .* by worker 4"):
        recorder.add(4, committed(7, loss=(7.0).hex()), now=9.0)
    assert recorder.add(0, committed(8), now=9.0)
    recorder.close()
    assert steps_of(path) == list(range(9))


def test_a_last_line_cut_short_by_a_kill_is_made_again_on_resume(path):
    written(path, range(6))
    path.write_bytes(path.read_bytes()[:-30])
    recorder = Recorder(path, resume_at=3)
    assert not recorder.add(0, committed(4), now=9.0)
    assert recorder.add(0, committed(5), now=9.0)
    recorder.close()
    assert steps_of(path) == list(range(6))


@pytest.mark.parametrize("resume_at", [7, 100])
def test_a_record_that_ends_too_early_cannot_be_resumed(path, resume_at):
    written(path, range(6))
    with pytest.raises(DataError, match=f"holds steps 0 to 5 and cannot be continued at step {resume_at}"):
        Recorder(path, resume_at)
    assert steps_of(path) == list(range(6))


def test_a_resumed_job_may_begin_a_record_of_its_own(path):
    recorder = Recorder(path, resume_at=5)
    assert recorder.add(0, committed(5), now=0.0)
    recorder.close()
    assert steps_of(path) == [5]
    with pytest.raises(DataError, match="holds steps 5 to 5 and cannot be continued at step 3"):
        Recorder(path, resume_at=3)


def test_a_record_that_cannot_be_written_is_an_error_that_says_why(tmp_path, path, recorder, monkeypatch):
    for place in (tmp_path, tmp_path / "nowhere" / "r"):
        with pytest.raises(DataError, match=f"cannot write the record {place}: "):
            Recorder(place)
    recorder.add(0, committed(0), now=0.0)
    real = os.pwrite
    left = 10

    def into_the_rest_of_the_disk(fd, raw, at):
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        written, left = real(fd, raw[:left], at), 0
        return written

    monkeypatch.setattr(os, "pwrite", into_the_rest_of_the_disk)
    with pytest.raises(
        DataError, match=r"cannot write step 1 to the record .*: No space left on device; make room"
    ):
        recorder.add(0, committed(1), now=0.0)
    assert steps_of(path) == [0]


def test_closing_twice_is_harmless(path):
    recorder = Recorder(path)
    recorder.close()
    recorder.close()


def rounded(step, generation, **changes):
    """A report of the backend's reduction: its rounding errors depend on the group."""
    loss = (2.5 / (step + 1) + generation * 2**-40).hex()
    return committed(step, loss=loss, generation=generation, repeatable=False, **changes)


def test_without_repeatable_bits_the_latest_generation_has_the_last_word(path, recorder):
    assert recorder.add(1, rounded(0, 1), now=0.0)
    assert recorder.add(1, rounded(1, 1), now=0.0)
    assert not recorder.add(0, rounded(1, 2), now=5.0), "made again after worker 1 died with its version 2"
    assert not recorder.add(1, rounded(1, 1), now=6.0), "a late word of the dead"
    assert recorder.add(0, rounded(2, 2), now=7.0)
    assert [(line.step, line.generation) for line in read(path)] == [(0, 1), (1, 2), (2, 2)]
    assert [line.loss for line in read(path)] == [rounded(0, 1).loss, rounded(1, 2).loss, rounded(2, 2).loss]


def test_without_repeatable_bits_a_fall_back_takes_later_lines_away(path, recorder):
    for step in range(6):
        recorder.add(0, rounded(step, 1), now=0.0)
    recorder.add(0, rounded(8, 1), now=0.0)  # early, and of a past that is gone
    recorder.add(4, rounded(4, 3), now=0.0)  # already of the generation after the next
    recorder.add(3, rounded(3, 2), now=0.0)
    assert [(line.step, line.generation) for line in read(path)] == [(0, 1), (1, 1), (2, 1), (3, 2), (4, 3)]
    for step in (5, 6, 7):
        recorder.add(4, rounded(step, 3), now=0.0)
    assert steps_of(path) == list(range(8))


def test_without_repeatable_bits_a_generation_still_agrees_with_itself_and_all_on_the_samples(recorder):
    recorder.add(0, rounded(0, 1), now=0.0)
    with pytest.raises(Divergence, match="step 0: loss"):
        recorder.add(1, committed(0, repeatable=False), now=0.0)
    with pytest.raises(Divergence, match="step 0: samples"):
        recorder.add(1, rounded(0, 2, samples="f" * 32), now=0.0)


def test_a_resumed_job_without_repeatable_bits_goes_on_from_its_first_report(path):
    recorder = Recorder(path)
    for step in range(8):
        recorder.add(0, rounded(step, 1), now=0.0)
    recorder.close()
    resumed = Recorder(path, resume_at=5)
    resumed.add(0, rounded(5, 2), now=0.0)
    resumed.close()
    assert [line.generation for line in read(path)] == [1] * 5 + [2]
