"""``hpresil run``: start a job on this node.

Flags that torchrun has keep their names (with dashes or underscores) and their meaning. Those that have
no meaning here are refused with the reason, because a flag that is silently ignored is a promise that is
not kept."""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
from pathlib import Path
from typing import Any, NoReturn

from hpresil.base import config as settings
from hpresil.base.errors import ConfigError
from hpresil.launch.job import Job

REFUSED = {
    "--rdzv-backend": "hpresil has its own rendezvous, over the agent's socket",
    "--rdzv-endpoint": "hpresil has its own rendezvous, over the agent's socket",
    "--rdzv-conf": "hpresil has its own rendezvous, over the agent's socket",
    "--local-addr": "on one node nothing listens on the network",
    "--monitor-interval": "the ends of workers are noticed as they happen, not by looking now and then",
    "--start-method": "workers are always new interpreters",
    "--event-log-handler": "events are in events.jsonl of the run directory",
    "--logs-specs": "logs are in the run directory; see --log-dir",
    "--duplicate-stdout-filters": "the logs of the run directory hold every line; filter them there",
    "--duplicate-stderr-filters": "the logs of the run directory hold every line; filter them there",
    "--numa-binding": "binding to NUMA nodes is not supported yet; start hpresil under numactl",
    "--signals-to-handle": "SIGINT, SIGTERM and SIGHUP drain the job, a second one kills it",
}
REFUSED_SWITCHES = {
    "--virtual-local-rank": "hpresil.init() chooses the device of a worker; LOCAL_RANK is its index",
}


class _Refuse(argparse.Action):
    """A flag of torchrun's that has no meaning here."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: Any = None
    ) -> NoReturn:
        """Say why."""
        name = self.option_strings[0]
        reason = {**REFUSED, **REFUSED_SWITCHES}[name]
        raise ConfigError(f"{name}: {reason}; leave the flag out")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb ``run``."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "run",
        help="start a training job",
        allow_abbrev=False,
        usage="hpresil run [flags] [-m | --no-python] SCRIPT [ARGUMENT ...]",
        description="Start a training job on this node. Flags that torchrun has mean what they mean there.",
    )
    _add_group_flags(parser)
    _add_command_flags(parser)
    _add_place_flags(parser)
    _add_output_flags(parser)
    _add_settings(parser)
    for name, nargs in ((REFUSED, None), (REFUSED_SWITCHES, 0)):
        for flag in name:
            parser.add_argument(*_both(flag), action=_Refuse, nargs=nargs, help=argparse.SUPPRESS)
    parser.add_argument("script", metavar="SCRIPT", help="the training script (or module, or program)")
    parser.add_argument("arguments", metavar="ARGUMENT", nargs=argparse.REMAINDER, help="its arguments")
    return parser


def _both(flag: str) -> list[str]:
    """Return the flag with dashes and, as torchrun allows, with underscores."""
    underscored = "--" + flag.removeprefix("--").replace("-", "_")
    return [flag] if underscored == flag else [flag, underscored]


def _add_group_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("who takes part")
    group.add_argument(
        *_both("--nproc-per-node"), default="1", metavar="N", help="workers: a number, cpu, gpu or auto (1)"
    )
    group.add_argument("--spares", default="0", metavar="K", help="workers held in reserve (0)")
    group.add_argument(
        *_both("--min-workers"), default="1", metavar="M", help="with fewer, wait; then save and stop (1)"
    )
    group.add_argument(
        *_both("--max-restarts"),
        default="16",
        metavar="R",
        help="processes started in place of lost ones, over the whole job (16)",
    )
    group.add_argument("--nnodes", default="1", metavar="1", help="only 1 is supported yet")
    group.add_argument("--standalone", action="store_true", help="accepted: it is one node already")
    group.add_argument(*_both("--node-rank"), default="0", metavar="0", help="accepted: there is only node 0")


def _add_command_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what runs")
    group.add_argument("-m", "--module", action="store_true", help="SCRIPT is a module, as in python -m")
    group.add_argument(
        *_both("--no-python"), action="store_true", help="SCRIPT is a program that is started as it is"
    )
    group.add_argument(
        *_both("--run-path"), action="store_true", help="accepted: scripts always run this way"
    )
    group.add_argument("--role", default="default", help="ROLE_NAME of the workers")
    group.add_argument("--run-id", "--rdzv-id", "--rdzv_id", default="", help="name of the job")
    group.add_argument(*_both("--master-addr"), default="127.0.0.1", help="given to the script, not used")
    group.add_argument(*_both("--master-port"), default="29500", help="given to the script, not used")


def _add_place_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where it is written")
    group.add_argument("--run-dir", type=Path, metavar="DIR", help="run directory (runs/<time>-<id>)")
    group.add_argument("--record", type=Path, metavar="FILE", help="one line for every committed step")
    group.add_argument(
        "--resume", action="store_true", help="go on from the run directory's newest checkpoint"
    )
    group.add_argument(*_both("--log-dir"), type=Path, metavar="DIR", help="base directory of workers' logs")
    group.add_argument(
        *_both("--shutdown-timeout"), default="5", metavar="S", help="seconds to leave after an error (5)"
    )


def _add_output_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what the terminal shows (default: the worker of rank 0)")
    which = "3: all workers, 0: none, or e.g. 0:3,1:3"
    group.add_argument("-t", "--tee", metavar="WHICH", help=f"workers whose output is shown; {which}")
    group.add_argument(
        "-r", "--redirects", metavar="WHICH", help=f"workers whose output is not shown; {which}"
    )
    group.add_argument(
        *_both("--local-ranks-filter"), metavar="I,J", help="show these workers only, by index"
    )


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("settings (docs/settings.md)")
    group.add_argument("--config", metavar="FILE", help="a TOML file of settings")
    for name, field in settings.FIELDS.items():
        group.add_argument(
            *_both(settings.flag(name)),
            dest=f"setting_{name}",
            metavar=type(field.default).__name__.upper(),
            help=f"{field.metadata['text']} ({field.default})",
        )


# --------------------------------------------------------------------------- flags → job


def job_of(args: argparse.Namespace) -> Job:
    """Return the job that the flags describe.

    Raises:
        ConfigError: a flag is wrong, or the script is not there.
    """
    _one_node(args)
    given = _settings(args)
    config = settings.resolve(None, {**os.environ, **given})
    workers = worker_count(args.nproc_per_node)
    min_workers = _count("--min-workers", args.min_workers, 1)
    if min_workers > workers:
        raise ConfigError(f"--min-workers {min_workers} is more than --nproc-per-node {workers}")
    spares = _count("--spares", args.spares, 0)
    run_id = args.run_id or secrets.token_hex(4)
    if "/" in run_id or run_id.startswith("."):
        raise ConfigError(f"--run-id {run_id!r} becomes part of a file name; use letters, digits, - and _")
    return Job(
        command=(*_command(args), *_script_arguments(args)),
        kind="module" if args.module else "program" if args.no_python else "script",
        workers=workers,
        spares=spares,
        min_workers=min_workers,
        max_restarts=_count("--max-restarts", args.max_restarts, 0),
        run_dir=args.run_dir,
        record=_record(args.record),
        log_dir=None if args.log_dir is None else _log_directory(args.log_dir, run_id),
        resume=args.resume,
        run_id=run_id,
        role=args.role,
        config=config,
        settings=given,
        shown=shown_workers(args.tee, args.redirects, args.local_ranks_filter, workers + spares),
        shutdown_timeout_s=float(_count("--shutdown-timeout", args.shutdown_timeout, 0)),
        master_addr=args.master_addr,
        master_port=_count("--master-port", args.master_port, 1),
    )


def _one_node(args: argparse.Namespace) -> None:
    if args.nnodes not in ("1", "1:1"):
        raise ConfigError(f"--nnodes {args.nnodes}: several nodes are not supported yet; leave the flag out")
    if args.node_rank != "0":
        raise ConfigError(f"--node-rank {args.node_rank}: several nodes are not supported yet")


def _settings(args: argparse.Namespace) -> dict[str, str]:
    """Return the flags that are settings as variables, checked."""
    given = {}
    for name in settings.FIELDS:
        text = getattr(args, f"setting_{name}")
        if text is not None:
            settings.parse(name, text, settings.flag(name))
            given[settings.variable(name)] = text
    if args.config is not None:
        given[settings.PREFIX + "CONFIG"] = str(Path(args.config).absolute())
    return given


def worker_count(text: str) -> int:
    """Return how many workers ``--nproc-per-node`` asks for.

    Raises:
        ConfigError: it is no number of at least 1, nor cpu, gpu or auto; or there is no GPU.
    """
    if text not in ("cpu", "gpu", "auto"):
        return _count("--nproc-per-node", text, 1, "cpu, gpu or auto")
    gpus = 0
    if text != "cpu":
        from hpresil.native import cuda_devices

        gpus = len(cuda_devices())
    if text == "gpu" and gpus == 0:
        raise ConfigError("--nproc-per-node gpu: this machine has no usable GPU; give a number, or cpu")
    return gpus or len(os.sched_getaffinity(0))


def _count(flag: str, text: str, lowest: int, or_else: str = "") -> int:
    try:
        found = int(text)
    except ValueError:
        found = lowest - 1
    if found < lowest:
        words = f", {or_else}" if or_else else ""
        raise ConfigError(f"{flag} {text}: give a whole number of at least {lowest}{words}")
    return found


def _command(args: argparse.Namespace) -> tuple[str]:
    """Return the script, the module or the program, after a look whether it is there."""
    name: str = args.script
    if name.startswith("-"):
        raise ConfigError(f"{name} is no flag of hpresil run (see hpresil run --help)")
    if args.module and args.no_python:
        raise ConfigError("-m and --no-python exclude each other")
    if args.module:
        return (name,)
    if args.no_python:
        found = shutil.which(name)
        if found is None:
            raise ConfigError(f"program {name} was not found or may not be executed")
        return (found,)
    if not os.path.exists(name):
        raise ConfigError(f"script {name} does not exist")
    if os.path.isdir(name):
        raise ConfigError(f"script {name} is a directory; give a file, or a module with -m")
    if not os.access(name, os.R_OK):
        raise ConfigError(f"script {name} cannot be read")
    return (name,)


def _script_arguments(args: argparse.Namespace) -> list[str]:
    rest: list[str] = args.arguments
    return rest[1:] if rest[:1] == ["--"] else rest


def _record(path: Path | None) -> Path | None:
    if path is None:
        return None
    if path.is_dir():
        raise ConfigError(f"--record {path} is a directory; name a file")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--record {path}: there is no directory {path.parent}")
    return path.absolute()


def _log_directory(base: Path, run_id: str) -> Path:
    """Make a directory of its own for this job under ``--log-dir``, as torchrun does."""
    path = base.absolute() / f"{run_id}-{secrets.token_hex(3)}"
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"--log-dir {base} cannot be used: {error.strerror}") from error
    return path


def shown_workers(
    tee: str | None, redirects: str | None, ranks: str | None, workers: int
) -> frozenset[int] | None:
    """Return the indices of the workers the terminal shows, None for the default."""
    if tee is None and redirects is None and ranks is None:
        return None
    shown = set(range(workers)) if tee is None else _which("--tee", tee, workers)
    if redirects is not None:
        shown -= _which("--redirects", redirects, workers)
    if ranks is not None:
        shown &= {_count("--local-ranks-filter", part, 0) for part in ranks.split(",")}
    return frozenset(shown)


def _which(flag: str, text: str, workers: int) -> set[int]:
    """Return the workers that a specification like torchrun's ("3" or "0:3,1:0") names."""
    parts = text.split(",")
    pairs = [part.split(":") for part in parts] if ":" in text else [[str(i), text] for i in range(workers)]
    chosen = set()
    for pair in pairs:
        if len(pair) != 2 or pair[1] not in ("0", "1", "2", "3") or not pair[0].isdecimal():
            raise ConfigError(f"{flag} {text}: give 0, 3, or INDEX:0 and INDEX:3 with commas between")
        if pair[1] in "12":
            raise ConfigError(f"{flag} {text}: stdout and stderr of a worker share one log; use 3 for both")
        if pair[1] == "3":
            chosen.add(int(pair[0]))
    return chosen


def main(args: argparse.Namespace) -> int:
    """Run the job and return its exit status."""
    job = job_of(args)
    from hpresil.launch.start import start

    return start(job)
