"""From the flags of ``hpresil run`` to a `Job`: everything is checked before anything is started."""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
from pathlib import Path
from typing import Literal

from hpresil.base import config as settings
from hpresil.base.errors import ConfigError
from hpresil.cli.nodes_of_flags import cluster_of, count
from hpresil.launch.job import Job


def job_of(args: argparse.Namespace) -> Job:
    """Return the job that the flags describe.

    Raises:
        ConfigError: a flag is wrong, or the script is not there.
    """
    given = _settings(args)
    config = settings.resolve(None, {**os.environ, **given})
    nproc = workercount(args.nproc_per_node)
    cluster = cluster_of(args)
    workers = nproc * (cluster.max_nodes if cluster else 1)
    if args.workers is not None:
        workers = count("--workers", args.workers, 1)
    min_workers = count("--min-workers", args.min_workers, 1)
    if min_workers > workers:
        raise ConfigError(f"--min-workers {min_workers} is more than the {workers} workers of the job")
    spares = count("--spares", args.spares, 0)
    run_id = args.run_id or secrets.token_hex(4)
    if "/" in run_id or run_id.startswith("."):
        raise ConfigError(f"--run-id {run_id!r} becomes part of a file name; use letters, digits, - and _")
    return Job(
        start_method=_start_method(args.start_method),
        command=(*_command(args), *_script_arguments(args)),
        kind="module" if args.module else "program" if args.no_python else "script",
        workers=workers,
        nproc_per_node=nproc,
        cluster=cluster,
        spares=spares,
        min_workers=min_workers,
        max_restarts=count("--max-restarts", args.max_restarts, 0),
        run_dir=args.run_dir,
        record=_record(args.record, args.run_dir),
        log_dir=None if args.log_dir is None else _log_directory(args.log_dir, run_id),
        resume=args.resume,
        run_id=run_id,
        role=args.role,
        config=config,
        settings=given,
        shown=shown_workers(args.tee, args.redirects, args.local_ranks_filter, workers + spares),
        shutdown_timeout_s=float(count("--shutdown-timeout", args.shutdown_timeout, 0)),
        master_addr=args.master_addr,
        master_port=count("--master-port", args.master_port, 1),
        metrics_port=_port("--metrics-port", args.metrics_port),
        metrics_addr=args.metrics_addr,
    )


def _start_method(text: str) -> Literal["forkserver", "spawn"]:
    if text not in ("forkserver", "spawn"):
        raise ConfigError(f"--start-method {text}: give forkserver or spawn")
    return "spawn" if text == "spawn" else "forkserver"


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


def workercount(text: str) -> int:
    """Return how many workers ``--nproc-per-node`` asks for.

    Raises:
        ConfigError: it is no number of at least 1, nor cpu, gpu or auto; or there is no GPU.
    """
    if text not in ("cpu", "gpu", "auto"):
        return count("--nproc-per-node", text, 1, "cpu, gpu or auto")
    gpus = 0
    if text != "cpu":
        from hpresil.native import cuda_devices

        gpus = len(cuda_devices())
    if text == "gpu" and gpus == 0:
        raise ConfigError("--nproc-per-node gpu: this machine has no usable GPU; give a number, or cpu")
    return gpus or len(os.sched_getaffinity(0))


def _port(flag: str, text: str) -> int:
    found = count(flag, text, 0)
    if found > 65535:
        raise ConfigError(f"{flag} {text}: a port is at most 65535; 0 for none")
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


def _record(path: Path | None, run_dir: Path | None) -> Path | None:
    if path is None:
        return None
    if path.is_dir():
        raise ConfigError(f"--record {path} is a directory; name a file")
    parent = path.absolute().parent  # the run directory is made later
    if not parent.is_dir() and (run_dir is None or parent != run_dir.absolute()):
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
        shown &= {count("--local-ranks-filter", part, 0) for part in ranks.split(",")}
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
