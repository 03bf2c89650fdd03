"""``hpresil demo``: a training run that loses workers and does not notice, and the proof of it."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from hpresil.base.errors import ConfigError, HpresilError

MAX_NODES = 4


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb ``demo``."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "demo",
        help="train a small Llama, kill and stop workers, compare with an undisturbed run",
        description="Train a small Llama on the standard library's source code with three workers and a "
        "spare; kill one worker, stop another; then train the same undisturbed with one worker and compare "
        "the records bit for bit. Exit status 1 if a verdict fails or a fault did not happen.",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write verdicts and recovery times to FILE")
    parser.add_argument(
        "--steps", metavar="N", type=int, default=30, help="train at least N steps (default: 30)"
    )
    parser.add_argument(
        "--local-nodes",
        metavar="K",
        type=int,
        default=1,
        help="train on K nodes on this machine, and lose one of them too (default: 1)",
    )
    parser.add_argument(
        "--run-dir",
        metavar="DIR",
        type=Path,
        help="keep corpus, logs and records in DIR, which must be empty "
        "(default: a temporary one, of which only the reports are kept unless something failed)",
    )
    return parser


def main(args: argparse.Namespace) -> int:
    """Run the demo and return its exit status: 0 if everything held, 1 if not, 130 if interrupted."""
    try:
        directory = _directory(args)
    except (ConfigError, OSError) as error:
        print(f"hpresil: {error}", file=sys.stderr)
        return 1
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the jobs as the keyboard does
    status = 1
    try:
        status = _demonstrate(args, directory)
    except (HpresilError, OSError) as error:
        print(f"hpresil: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("hpresil: interrupted", file=sys.stderr)
        status = 130
    finally:
        signal.signal(signal.SIGTERM, before)
    if args.run_dir is None and status != 1:
        _keep_reports_only(directory)
    else:
        print(f"logs and records: {directory}")
    return status


def _keep_reports_only(directory: Path) -> None:
    """Remove what the jobs wrote; the reports stay to be looked at."""
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix != ".html":
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        directory.rmdir()  # only if there are none


def _directory(args: argparse.Namespace) -> Path:
    """Return the empty directory to work in; check what the flags say before anything is started."""
    if args.steps < 1:
        raise ConfigError(f"--steps must be at least 1, not {args.steps}")
    if not 1 <= args.local_nodes <= MAX_NODES:
        raise ConfigError(f"--local-nodes must be from 1 to {MAX_NODES}, not {args.local_nodes}")
    if args.json is not None and not args.json.absolute().parent.is_dir():
        raise ConfigError(f"--json {args.json}: there is no directory {args.json.parent}; create it first")
    if args.run_dir is None:
        return Path(tempfile.mkdtemp(prefix="hpresil-demo-"))
    directory: Path = args.run_dir.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise ConfigError(f"--run-dir {args.run_dir} is not empty; name a new directory")
    return directory


def _demonstrate(args: argparse.Namespace, directory: Path) -> int:
    # Imported here, so that `hpresil --help` does not wait for torch.
    from rich.console import Console
    from rich.markup import escape

    from hpresil.recipes.demo.conductor import Script
    from hpresil.recipes.demo.report import as_json, table, write_json
    from hpresil.recipes.demo.show import show

    console = Console()
    result = show(directory, Script(steps=args.steps, nodes=args.local_nodes), console)
    console.print(table(result.rows))
    for name, verdict in result.verdicts.items():
        style = "[bold green]yes[/]" if verdict.holds else "[bold red]NO[/]"
        console.print(f"{name}: {style}  ({escape(verdict.why)})", highlight=False, soft_wrap=True)
    for problem in result.problems:
        console.print(f"[bold red]problem[/]: {escape(problem)}", highlight=False, soft_wrap=True)
    for report in result.reports:
        console.print(f"report: {report}", highlight=False, soft_wrap=True, markup=False)
    if args.json is not None:
        write_json(args.json, as_json(result.verdicts, result.rows))
    return 0 if result.holds() else 1
