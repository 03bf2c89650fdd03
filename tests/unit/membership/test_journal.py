"""The journal: replay, torn ends, damage."""

from __future__ import annotations

from pathlib import Path

import pytest
from coordinator_story import Story

from hpresil.base.errors import ConfigError
from hpresil.membership import machine, messages as m
from hpresil.membership.journal import Journal, last_generation, replay
from hpresil.membership.state import begin


def eventful() -> Story:
    story = Story(workers=3, spares=1, first_generation=6).begins(version=5)
    story.lost(1)
    story.everybody_reports(5)
    story.everybody_restores()
    story.committed(5)
    story.after(1000)
    story.failed(0, 6, 1)
    return story


def write(path: Path, story: Story) -> None:
    """Write what a server would: the events that changed the state."""
    journal = Journal(path, begin(story.settings, 0.0), 0.0)
    state = machine.begin(story.settings, 0.0)
    for event, time in story.history:
        after, _ = machine.step(state, event, time)
        if after is not state:
            journal.append(event, time, after.generation)
        state = after
    journal.close()
    journal.close()


def test_a_journal_leads_to_the_same_state(tmp_path: Path) -> None:
    story = eventful()
    write(tmp_path / "journal", story)
    found = replay(tmp_path / "journal")
    assert found.state == story.state
    assert found.torn_bytes == 0
    assert last_generation(tmp_path / "journal") == story.state.generation == 8


def test_only_the_first_report_of_a_step_is_kept_and_without_its_figures(tmp_path: Path) -> None:
    story = Story(workers=2).begins(version=0)
    write(tmp_path / "before", story)
    story.committed(0)
    write(tmp_path / "after", story)
    grown = (tmp_path / "after").stat().st_size - (tmp_path / "before").stat().st_size
    assert 0 < grown < 200
    assert b"\xa2ab" not in (tmp_path / "after").read_bytes()[-grown:]


def test_a_torn_end_at_any_byte_gives_the_state_before_it(tmp_path: Path) -> None:
    story = Story(workers=2).begins(version=1)
    path = tmp_path / "journal"
    write(path, story)
    whole = path.read_bytes()
    entries = replay(path).entries
    story.lost(1)
    longer = tmp_path / "longer"
    write(longer, story)
    last = longer.read_bytes()[len(whole) :]
    for cut in range(1, len(last)):
        longer.write_bytes(whole + last[:cut])
        found = replay(longer)
        assert found.entries == entries
        assert found.torn_bytes == cut
    longer.write_bytes(whole + last[:-1] + bytes([last[-1] ^ 1]))
    assert replay(longer).entries == entries


def test_damage_in_the_middle_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write(path, eventful())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"damaged|no journal"):
        replay(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" * 20, bytes(100), b"\x00\x00"])
def test_a_foreign_file_is_no_journal(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="no journal"):
        replay(path)


def test_jobs_never_share_a_journal(tmp_path: Path) -> None:
    write(tmp_path / "journal", Story())
    with pytest.raises(FileExistsError):
        Journal(tmp_path / "journal", Story().state, 0.0)


def test_a_tick_is_kept_as_such(tmp_path: Path) -> None:
    story = Story(workers=1, join_timeout_s=5)
    story.agent_joins()
    story.after(5)
    assert story.end.status == 1
    write(tmp_path / "journal", story)
    assert replay(tmp_path / "journal").state.phase == "ended"
    assert isinstance(story.history[-1][0], machine.Tick)
    assert isinstance(story.told[-1], m.JobEnded)
