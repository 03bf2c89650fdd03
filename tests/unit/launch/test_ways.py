"""In which order an agent tries to get at a frame."""

from __future__ import annotations

import asyncio

import pytest

from hpresil.base.errors import ConfigError
from hpresil.launch import ways
from hpresil.membership.peer_messages import Holder

HOP = Holder(host="10.0.0.2", port=2, machine="here", socket="/run/hop")
SOURCE = Holder(host="10.0.0.1", port=1, machine="here", socket="/run/source")


def test_the_network_goes_by_preference_and_the_source_is_last() -> None:
    assert [source.name for source in ways.to([HOP, SOURCE], "elsewhere")] == ["10.0.0.2:2", "10.0.0.1:1"]


def test_the_sources_memory_comes_first_on_its_machine() -> None:
    memory, *network = ways.to([HOP, SOURCE], "here")
    assert memory.unix_path == "/run/source"
    assert [source.name for source in network] == ["10.0.0.2:2", "10.0.0.1:1"]


def test_nobody_is_nowhere() -> None:
    assert ways.to([], "here") == []
    assert ways.to([Holder()], "") == []


def test_a_name_becomes_numbers_and_one_without_is_an_error_in_words() -> None:
    assert asyncio.run(ways.numeric("localhost")) == "127.0.0.1"
    assert asyncio.run(ways.numeric("::1")) == "::1"
    with pytest.raises(ConfigError, match="has no address"):
        asyncio.run(ways.numeric("no such host.invalid"))
