"""The settings of a job: one dataclass, four sources, one error.

A value may come from ``Config(...)`` in the script, a TOML file (named by ``HPRESIL_CONFIG``), an
``HPRESIL_*`` variable or a flag of ``hpresil run``; a later one in this list wins. The launcher turns its
flags into variables for its workers, so that a worker sees the same four sources as the agent.

The first five settings are the job's **identity**: they fix the bits and the data order, their defaults
are constants (never taken from the machine or the number of workers), and a resume with others is refused.

Nothing is guessed: an unknown key or variable is refused with the nearest known name, because a setting
that is silently ignored is found out after the job.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hpresil.base.errors import ConfigError

PREFIX = "HPRESIL_"
IDENTITY = ("slots", "microbatches", "microbatch_size", "seed", "reduction")
"""The settings that fix the bits and the data order."""

OF_THE_AGENT = (
    "hang_timeout_min_s",
    "min_workers_timeout_s",
    "join_timeout_s",
    "restore_timeout_s",
    "save_timeout_s",
    "finish_timeout_s",
    "snapshot_every",
)
"""Settings that the agent uses, which is up before the script says `Config(...)`."""

INTERNAL = frozenset(
    PREFIX + name
    for name in (
        "CONFIG",  # path of the TOML file
        "FAILPOINTS",  # path of the armed faults, tests only
        "CORE",  # 1: workers may dump core
        "CPU_LEVEL",  # instruction set of the native core
        "CUDA",  # AUTO, ON or OFF, read when hpresil is built
        "SOCKET",  # what the launcher hands to its workers
        "PAGE_FD",
        "ARENA_FDS",
        "TRACE_FD",
        "WORKER",
        "AGENT_PID",
        "RUN_DIR",
        "LOG_DIR",
        "RESUME",
        "NODE",
        "NODE_ADDR",
        "SECRET_FILE",  # the job's secret, on several nodes
        "LOCAL_NODE",  # what --local-nodes tells its agents
    )
)
"""Variables with our prefix that are not settings."""

Value = int | float | str


def _setting(default: Value, unit: str, lowest: float, highest: float, text: str) -> Any:
    meta = {"unit": unit, "lowest": lowest, "highest": highest, "text": text}
    return dataclasses.field(default=default, metadata=meta)


def _choice(default: str, choices: tuple[str, ...], text: str) -> Any:
    return dataclasses.field(default=default, metadata={"unit": "", "choices": choices, "text": text})


@dataclass(frozen=True)
class Config:
    """The settings of one job; `docs/settings.md` has them as a table.

    Raises:
        ConfigError: a value has the wrong type or lies outside its range.
    """

    slots: int = _setting(
        8, "slots", 1, 65536, "Parts of every global batch; at least 4 x the largest world."
    )
    microbatches: int = _setting(1, "microbatches", 1, 65536, "Forward and backward passes of one slot.")
    microbatch_size: int = _setting(8, "samples", 1, 1 << 24, "Samples of one forward and backward pass.")
    seed: int = _setting(0, "", 0, (1 << 64) - 1, "Seed of the data order and of every random number.")
    reduction: str = _choice(
        "canonical",
        ("canonical", "native"),
        "How gradients are summed: canonical gives the same bits at every number of workers, native is the "
        "backend's all-reduce.",
    )
    hang_timeout_min_s: float = _setting(
        3.0, "s", 0.1, 86400, "A worker inside a step is never called hung before this time."
    )
    outside_timeout_s: float = _setting(
        600.0, "s", 1, 1e7, "Longest time between two steps, and between `apply` and the end of a block."
    )
    collective_timeout_s: float = _setting(
        600.0, "s", 1, 1e7, "Last resort for an operation of the process group that nothing else ended."
    )
    min_workers_timeout_s: float = _setting(
        300.0, "s", 0, 1e7, "How long a job with fewer than --min-workers waits before it saves and stops."
    )
    join_timeout_s: float = _setting(
        600.0, "s", 1, 1e7, "How long a new worker may take until it reaches its step loop."
    )
    restore_timeout_s: float = _setting(600.0, "s", 1, 1e7, "How long a newcomer may take to copy the state.")
    save_timeout_s: float = _setting(
        120.0, "s", 1, 1e7, "How long one worker may take to save the state before the job ends."
    )
    finish_timeout_s: float = _setting(
        3600.0, "s", 1, 1e7, "How long a script may go on after its last step before it is ended."
    )
    snapshot_every: int = _setting(
        0,
        "steps",
        0,
        1 << 40,
        "Snapshot to the agent's memory every so many steps; 0: when a newcomer needs it.",
    )
    record_state_every: int = _setting(
        0, "steps", 0, 1 << 40, "Put the digest of all tracked state into the record so often; 0: never."
    )
    copy_threads: int = _setting(
        0, "threads", 0, 256, "Threads that copy state; 0: half of the usable cores, at most 8."
    )

    def __post_init__(self) -> None:
        for field in fields(self):
            value = _checked(field, getattr(self, field.name), "Config(...)")
            object.__setattr__(self, field.name, value)

    def identity(self) -> dict[str, str]:
        """Return the settings that fix the bits, as strings."""
        return {name: str(getattr(self, name)) for name in IDENTITY}


FIELDS = {field.name: field for field in fields(Config)}


def variable(name: str) -> str:
    """Return the environment variable of setting ``name``."""
    return PREFIX + name.upper()


def flag(name: str) -> str:
    """Return the flag of ``hpresil run`` for setting ``name``."""
    return "--" + name.replace("_", "-")


def resolve(explicit: Config | None, env: Mapping[str, str]) -> Config:
    """Return the settings that hold, from ``explicit`` (lowest), the TOML file and ``env``.

    Args:
        explicit: What the script gave, if anything.
        env: The environment; ``HPRESIL_CONFIG`` in it names the TOML file.

    Raises:
        ConfigError: a value, a key or a variable is wrong; the message names setting, value and source.
    """
    values: dict[str, Value] = dataclasses.asdict(explicit or Config())
    if explicit is not None and PREFIX + "SOCKET" in env:
        _refuse_too_late(explicit, env)
    path = env.get(PREFIX + "CONFIG")
    if path:
        values.update(_from_file(Path(path)))
    for key, text in env.items():
        if not key.startswith(PREFIX) or key in INTERNAL:
            continue
        name = key.removeprefix(PREFIX).lower()
        if name not in FIELDS or key != variable(name):
            known = [variable(field) for field in FIELDS] + sorted(INTERNAL)
            raise ConfigError(f"{key} is not a setting{_nearest(key, known)}; unset it or correct its name")
        values[name] = _checked(FIELDS[name], _parsed(FIELDS[name], text, key), key)
    return Config(**values)  # type: ignore[arg-type]


def parse(name: str, text: str, source: str) -> Value:
    """Return ``text`` as a value of setting ``name``; ``source`` is named if it cannot be one.

    Raises:
        ConfigError: the text is not such a value, or out of range.
    """
    return _checked(FIELDS[name], _parsed(FIELDS[name], text, source), source)


def _refuse_too_late(explicit: Config, env: Mapping[str, str]) -> None:
    """Refuse what the script says and the agent cannot know, unless the agent was told the same."""
    known = resolve(None, env)
    for name in OF_THE_AGENT:
        value = getattr(explicit, name)
        if value not in (FIELDS[name].default, getattr(known, name)):
            raise ConfigError(
                f"{name} = {value!r} (from Config(...)) comes too late: the agent, which uses it, was "
                f"started before this script; pass {flag(name)} to hpresil run, or set {variable(name)}"
            )


def _from_file(path: Path) -> dict[str, Value]:
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"settings file {path}: {error.strerror}; correct HPRESIL_CONFIG or --config"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"settings file {path} is not TOML: {error}") from error
    values = {}
    for name, value in table.items():
        if name not in FIELDS:
            raise ConfigError(
                f"settings file {path}: {name!r} is not a setting{_nearest(name, list(FIELDS))}"
            )
        values[name] = _checked(FIELDS[name], value, str(path))
    return values


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else f" (known: {', '.join(known)})"


def _parsed(field: dataclasses.Field[Any], text: str, source: str) -> object:
    kind: Any = type(field.default)
    try:
        return kind(text.strip())
    except ValueError:
        raise _wrong(field, text, source) from None


def _checked(field: dataclasses.Field[Any], value: object, source: str) -> Value:
    kind = type(field.default)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise _wrong(field, value, source)
    if isinstance(value, str):
        if value not in field.metadata["choices"]:
            raise _wrong(field, value, source)
        return value
    assert isinstance(value, (int, float))
    if not field.metadata["lowest"] <= value <= field.metadata["highest"]:  # false for NaN as well
        raise _wrong(field, value, source)
    return value


def allowed(name: str) -> str:
    """Return in words what setting ``name`` may be."""
    field = FIELDS[name]
    meta = field.metadata
    if "choices" in meta:
        return " or ".join(meta["choices"])
    kind = "an integer" if isinstance(field.default, int) else "a number"
    unit = f" {meta['unit']}" if meta["unit"] else ""
    return f"{kind} from {_plain(meta['lowest'])} to {_plain(meta['highest'])}{unit}"


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _wrong(field: dataclasses.Field[Any], value: object, source: str) -> ConfigError:
    return ConfigError(f"{field.name} = {value!r} (from {source}) must be {allowed(field.name)}")
