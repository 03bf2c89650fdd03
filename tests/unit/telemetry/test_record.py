"""Records: what is no record is refused with the line, two records are compared bit for bit."""

import json

import pytest

from hpresil.base.errors import DataError
from hpresil.membership.messages import Committed
from hpresil.telemetry.record import Difference, compare, read
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


LINE = {"step": 1, "loss": "0x0p+0", "grad_norm": "0x0p+0", "state": "", "samples": "", "generation": 1}
LINE |= {"world_size": 1, "time": 0.0}


@pytest.mark.parametrize(
    "bad",
    [
        "not json",
        "[]",
        '{"epoch": 1}',
        json.dumps(LINE | {"step": "1"}),
        json.dumps(LINE | {"loss": "much"}),
        json.dumps(LINE | {"grad_norm": "0x1p+99999"}),
        "\x00",
        "",
    ],
)
def test_a_foreign_line_is_named(path, bad):
    written(path, [0])
    with path.open("a") as file:
        file.write(bad + "\n")
    with pytest.raises(DataError, match=r"record.jsonl, line 2: not a line of a record"):
        list(read(path))


def test_fields_of_later_releases_are_ignored(path):
    path.write_text(json.dumps(LINE | {"colour": "blue"}) + "\n")
    assert steps_of(path) == [1]


def test_a_truncated_last_line_a_gap_and_a_repeat_are_named(path):
    written(path, range(4))
    lines = path.read_text().splitlines(keepends=True)
    for kept, why in [
        ([*lines[:2], lines[2][:-1]], "line 3: the record is truncated in this line"),
        ([lines[0], lines[2]], "line 2: step 2 after step 0 leaves a gap"),
        ([*lines[:3], lines[2]], "line 4: step 2 after step 2 is repeated"),
        ([lines[1], lines[0]], "line 2: step 0 after step 1 is repeated or out of order"),
    ]:
        path.write_text("".join(kept))
        with pytest.raises(DataError, match=why):
            list(read(path))


def test_a_record_that_is_not_there_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"cannot read the record .*: No such file"):
        list(read(tmp_path / "nothing"))


def test_equal_records_have_no_difference_whatever_the_run_was_like(tmp_path):
    a = written(tmp_path / "a", range(50), generation=1, world_size=1)
    b = written(tmp_path / "b", range(50), generation=9, world_size=4)
    assert compare(a, b) is None


def test_the_first_difference_is_found(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    written(a, range(50))
    recorder = Recorder(b)
    for step in range(50):
        changes = {"grad_norm": (-0.0).hex()} if step == 0 else {}
        recorder.add(0, committed(step, **changes), now=0.0)
    recorder.close()
    difference = compare(a, b)
    assert difference == Difference(0, "grad_norm", "0x0.0p+0", "-0x0.0p+0")
    assert str(difference) == "step 0: grad_norm is 0x0.0p+0 (0.0) and -0x0.0p+0 (-0.0)"


def test_states_are_compared_where_both_have_them(tmp_path):
    plain, one, two = (written(tmp_path / s, range(3), state=s if s != "n" else "") for s in ("n", "a", "b"))
    assert compare(plain, one) is None
    assert compare(one, plain) is None
    assert compare(one, two) == Difference(0, "state", "a", "b")


def test_records_of_different_length_or_beginning_differ(tmp_path):
    a, b = written(tmp_path / "a", range(5)), written(tmp_path / "b", range(3))
    assert compare(a, b) == Difference(3, "step", "3", None)
    assert compare(b, a) == Difference(3, "step", None, "3")
    recorder = Recorder(tmp_path / "c", resume_at=2)
    recorder.add(0, committed(2), now=0.0)
    recorder.close()
    assert compare(a, tmp_path / "c") == Difference(0, "step", "0", None)


def test_an_empty_record_is_not_equal_to_anything(tmp_path):
    full = written(tmp_path / "full", range(2))
    (tmp_path / "empty").touch()
    for pair in ((full, tmp_path / "empty"), (tmp_path / "empty", full), (tmp_path / "empty",) * 2):
        with pytest.raises(DataError, match="empty is empty: a record has at least one step"):
            compare(*pair)
