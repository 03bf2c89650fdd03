from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from hpresil.recipes.demo.verdicts import Batches, bit_identical, exactly_once
from hpresil.telemetry.record import Line

BATCHES = Batches(samples=1000, slots=8, microbatches=1, microbatch_size=2, seed=7)


def lines(steps: int = 6) -> list[Line]:
    return [
        Line(
            step=step,
            loss=(5.0 - step / 10).hex(),
            grad_norm=(1.0).hex(),
            state="ab" if step % 5 == 0 else "",
            samples=BATCHES.digest(step),
            generation=1,
            world_size=3,
            time=float(step),
        )
        for step in range(steps)
    ]


def write(path: Path, content: list[Line]) -> Path:
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in content))
    return path


@pytest.fixture
def record(tmp_path) -> Path:
    return write(tmp_path / "record.jsonl", lines())


def test_equal_records_are_bit_identical_whoever_made_them(tmp_path, record):
    other = [msgspec.structs.replace(line, generation=1, world_size=1, time=9.0) for line in lines()]
    verdict = bit_identical(record, write(tmp_path / "other.jsonl", other))
    assert verdict.holds
    assert "6 steps have equal loss" in verdict.why
    assert "2 digests" in verdict.why


def test_the_last_bit_of_a_loss_counts(tmp_path, record):
    other = lines()
    other[3] = msgspec.structs.replace(other[3], loss=float.hex(4.700000000000001))
    verdict = bit_identical(record, write(tmp_path / "other.jsonl", other))
    assert not verdict.holds
    assert verdict.why.startswith("step 3: loss is")


def test_a_missing_step_is_a_difference(tmp_path, record):
    verdict = bit_identical(record, write(tmp_path / "other.jsonl", lines(5)))
    assert not verdict.holds


def test_every_step_with_its_own_samples_is_exactly_once(record):
    verdict = exactly_once(record, BATCHES, steps=6)
    assert verdict.holds
    assert verdict.why == "96 samples are the first 96 of the data order"


def test_a_step_too_few_is_not_exactly_once(record):
    assert "6 steps instead of 0 to 6" in exactly_once(record, BATCHES, steps=7).why


def test_a_repeated_step_is_not_exactly_once(tmp_path):
    path = write(tmp_path / "repeated.jsonl", [*lines(3), lines(3)[2]])
    verdict = exactly_once(path, BATCHES, steps=4)
    assert not verdict.holds
    assert "repeated" in verdict.why


def test_another_step_s_samples_are_noticed(tmp_path):
    content = lines()
    content[4] = msgspec.structs.replace(content[4], samples=content[3].samples)
    verdict = exactly_once(write(tmp_path / "wrong.jsonl", content), BATCHES, steps=6)
    assert verdict.why == "step 4 did not consume the samples of the data order"


def test_another_seed_is_noticed(record):
    assert not exactly_once(record, replace(BATCHES, seed=8), steps=6).holds


def test_no_record_fails_both(tmp_path, record):
    assert not bit_identical(record, tmp_path / "none").holds
    assert not exactly_once(tmp_path / "none", BATCHES, steps=6).holds
