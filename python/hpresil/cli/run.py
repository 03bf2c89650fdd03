"""``hpresil run``: start a job on this node.

Flags that torchrun has keep their names (with dashes or underscores) and their meaning. Those that have
no meaning here are refused with the reason, because a flag that is silently ignored is a promise that is
not kept."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from hpresil.base import config as settings
from hpresil.base.errors import ConfigError
from hpresil.cli.job_of_flags import job_of
from hpresil.cli.nodes_of_flags import local_nodes, stand_at

REFUSED = {
    "--rdzv-backend": "hpresil has its own rendezvous, over the agent's socket",
    "--rdzv-endpoint": "hpresil has its own rendezvous, over the agent's socket",
    "--rdzv-conf": "hpresil has its own rendezvous, over the agent's socket",
    "--local-addr": "it is called --node-addr here",
    "--monitor-interval": "the ends of workers are noticed as they happen, not by looking now and then",
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
        description="Start a training job. Flags that torchrun has mean what they mean there.",
    )
    _add_group_flags(parser)
    _add_node_flags(parser)
    _add_command_flags(parser)
    _add_place_flags(parser)
    _add_output_flags(parser)
    _add_metrics_flags(parser)
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
    group.add_argument("--workers", metavar="W", help="workers over all nodes (nnodes x nproc-per-node)")
    group.add_argument("--standalone", action="store_true", help="accepted: one node is the default")


def _add_node_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("several nodes (docs/guides/several-nodes.md)")
    group.add_argument(
        "--nnodes", default="1", metavar="MIN[:MAX]", help="begin with MIN nodes, take in up to MAX (1)"
    )
    group.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="where the coordinator listens, on the first node",
    )
    group.add_argument(
        *_both("--node-rank"),
        metavar="I",
        help="0: the coordinator lives here (default: where HOST is)",
    )
    group.add_argument(*_both("--node-name"), metavar="NAME", help="name of this node (its host name)")
    group.add_argument(
        *_both("--node-addr"), metavar="ADDR", help="address of this machine that the other nodes reach"
    )
    group.add_argument(
        *_both("--local-nodes"), metavar="K", help="K nodes on this machine, each a failure domain of its own"
    )
    group.add_argument(
        "--lease",
        type=Path,
        metavar="FILE",
        help="a file that all nodes share and can lock: whoever holds it is the coordinator "
        "(default: a new one needs most of the nodes)",
    )
    group.add_argument(
        *_both("--tls-files"),
        metavar="CERT,KEY,CA",
        help="own certificates instead of the job's secret (HPRESIL_SECRET_FILE)",
    )


def _add_command_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what runs")
    group.add_argument("-m", "--module", action="store_true", help="SCRIPT is a module, as in python -m")
    group.add_argument(
        *_both("--no-python"), action="store_true", help="SCRIPT is a program that is started as it is"
    )
    group.add_argument(
        *_both("--run-path"), action="store_true", help="accepted: scripts always run this way"
    )
    group.add_argument(
        *_both("--start-method"),
        default="forkserver",
        metavar="METHOD",
        help="forkserver: workers are forked from a process that has imported torch; spawn: each is a new "
        "interpreter, which starts more slowly (forkserver)",
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


def _add_metrics_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("metrics for Prometheus (docs/metrics.md)")
    group.add_argument(
        *_both("--metrics-port"), default="0", metavar="PORT", help="serve them there; 0: not (0)"
    )
    group.add_argument(
        *_both("--metrics-addr"),
        default="127.0.0.1",
        metavar="ADDRESS",
        help="listen on this address; there is no password (127.0.0.1)",
    )


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("settings (docs/settings.md)")
    group.add_argument("--config", metavar="FILE", help="a TOML file of settings")
    for name, field in settings.FIELDS.items():
        group.add_argument(
            *_both(settings.flag(name)),
            dest=f"setting_{name}",
            metavar="|".join(field.metadata.get("choices", (type(field.default).__name__.upper(),))),
            help=f"{field.metadata['text']} ({field.default})",
        )


def main(args: argparse.Namespace) -> int:
    """Run the job and return its exit status."""
    if args.local_nodes is not None:
        from hpresil.launch.local_nodes import place, run_local_nodes

        here = place()
        if here is None:
            job_of(args)  # a wrong flag is told once, not by every agent
            return run_local_nodes(*local_nodes(args), args.words)
        stand_at(args, here)
    job = job_of(args)
    from hpresil.launch.start import start

    return start(job)
