"""``hpresil doctor``: findings, exit status, and the slot-efficiency table."""

import argparse
import json
import subprocess
import sys

import pytest

from hpresil.cli import doctor
from hpresil.native import machine_check
from hpresil.native.machine_check import Check


def run(*words: str) -> int:
    parser = argparse.ArgumentParser(prog="hpresil")
    doctor.add_parser(parser.add_subparsers(dest="verb"))
    return doctor.main(parser.parse_args(["doctor", *words]))


def test_this_machine_is_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {check["name"] for check in found["checks"]} >= {"pidfd", "death notice (robust futex)"}
    assert all(check["passed"] for check in found["checks"])
    assert found["machine"]["cpus"] >= 1
    assert found["built"]["cpu_level"] in found["built"]["cpu_levels"]


def test_the_text_says_what_the_json_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--slots", "3") == 0
    text = capsys.readouterr().out
    for part in ("compiler", "torch", "devices", "works  sealed memory files", "3 slots"):
        assert part in text


def test_a_failed_check_sets_the_exit_status(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [Check("pidfd", False, "OSError: Function not implemented")]
    monkeypatch.setattr(machine_check, "run", lambda: broken)
    assert run() == 1
    assert "FAILS  pidfd: OSError: Function not implemented" in capsys.readouterr().out


def test_a_check_that_raises_is_a_finding() -> None:
    def fail() -> str:
        raise OSError(38, "Function not implemented")

    found = machine_check._tried("x", fail)
    assert (found.passed, found.saw) == (False, "OSError: [Errno 38] Function not implemented")


def test_the_table_of_8_slots() -> None:
    rows = {row.workers: row for row in doctor.slot_efficiency(8)}
    assert list(rows) == list(range(1, 17))
    assert (rows[1].slots_of_time, rows[1].efficiency) == (8, 1.0)
    assert (rows[3].slots_of_time, rows[3].efficiency) == (3, 8 / 9)
    assert (rows[7].slots_of_time, rows[7].efficiency) == (2, 8 / 14)
    assert (rows[16].slots_of_time, rows[16].efficiency) == (1, 0.5)


@pytest.mark.parametrize("slots", ["0", "65537", "many"])
def test_impossible_slots_are_refused(slots: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("--slots", slots)


def test_looking_at_versions_does_not_import_torch() -> None:
    program = (
        "import sys; from hpresil.cli import doctor; doctor.versions(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
