"""From the flags of ``hpresil run`` to where this node stands among several; checked before any start."""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import time
from pathlib import Path

from hpresil.base.errors import ConfigError
from hpresil.launch.cluster import Cluster
from hpresil.launch.local_nodes import LOOPBACK, LocalNode
from hpresil.membership import tls

SECRET_FILE = "HPRESIL_SECRET_FILE"
SECRET_S = 30.0
POLL_S = 0.05


def count(flag: str, text: str, lowest: int, or_else: str = "") -> int:
    """Return the number after ``flag``. Raises ConfigError if it is none, or less than ``lowest``."""
    try:
        found = int(text)
    except ValueError:
        found = lowest - 1
    if found < lowest:
        words = f", {or_else}" if or_else else ""
        raise ConfigError(f"{flag} {text}: give a whole number of at least {lowest}{words}")
    return found


def node_range(text: str) -> tuple[int, int]:
    """Return MIN and MAX of ``--nnodes MIN[:MAX]``."""
    least, _, most = text.partition(":")
    minimum = count("--nnodes", least, 1)
    maximum = count("--nnodes", most, 1) if most else minimum
    if maximum < minimum:
        raise ConfigError(f"--nnodes {text}: the first number must not be above the second")
    return minimum, maximum


def cluster_of(args: argparse.Namespace) -> Cluster | None:
    """Return where this node stands; None for a job of one node."""
    nnodes, max_nodes = node_range(args.nnodes)
    if args.coordinator is None:
        if max_nodes > 1:
            raise ConfigError(
                f"--nnodes {args.nnodes} needs --coordinator HOST:PORT, the same on every node: an address "
                "of the first node and a free port there"
            )
        if args.node_rank not in (None, "0"):
            raise ConfigError(f"--node-rank {args.node_rank} needs --nnodes and --coordinator")
        return None
    host, port = _address(args.coordinator)
    here = _is_here(host) if args.node_rank is None else args.node_rank == "0"
    rank = count("--node-rank", args.node_rank, 0) if args.node_rank is not None else 0 if here else 1
    return Cluster(
        node=args.node_name or socket.gethostname(),
        rank=rank,
        hosts=here and not getattr(args, "returning", False),
        host=host,
        port=port,
        address=args.node_addr or (host if here else _way_to(host, port)),
        nnodes=nnodes,
        max_nodes=max_nodes,
        credentials=_credentials(args, make=here),
        lease=args.lease.absolute() if args.lease is not None else None,
    )


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"--coordinator {text}: give HOST:PORT, for example 10.0.0.1:29500")
    try:
        return socket.gethostbyname(host), int(port)
    except OSError as error:
        raise ConfigError(f"--coordinator {text}: {host} is not known here: {error.strerror}") from error


def _is_here(host: str) -> bool:
    """Return whether ``host`` is an address of this machine: only then can a socket be bound to it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        try:
            sock.bind((host, 0))
        except OSError:
            return False
    return True


def _way_to(host: str, port: int) -> str:
    """Return the address of this machine from which the kernel would reach ``host``; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((host, port))
        except OSError as error:
            raise ConfigError(
                f"this machine has no way to the coordinator at {host}: {error.strerror}; name its address "
                "with --node-addr"
            ) from error
        return str(sock.getsockname()[0])


def _credentials(args: argparse.Namespace, *, make: bool) -> tls.Credentials:
    if args.tls_files is not None:
        parts = args.tls_files.split(",")
        if len(parts) != 3:
            raise ConfigError(f"--tls-files {args.tls_files}: give three files, CERT,KEY,CA")
        return tls.from_files(*map(Path, parts))
    path = _secret(args)
    if make:
        _make(path)
    elif not os.environ.get(SECRET_FILE):
        _wait_for(path)
    return tls.from_secret(tls.read_secret(path))


def _secret(args: argparse.Namespace) -> Path:
    named = os.environ.get(SECRET_FILE, "")
    if not named and args.run_dir is None:
        raise ConfigError(
            f"several nodes need a common secret: name its file with {SECRET_FILE}, or a common --run-dir on "
            "a file system that all nodes share"
        )
    return Path(named) if named else args.run_dir / "secret"


def _wait_for(secret: Path) -> None:
    """Give the first node time to make the secret: all nodes may be started at once."""
    end = time.monotonic() + SECRET_S
    while not secret.exists() and time.monotonic() < end:
        time.sleep(POLL_S)


def _make(secret: Path) -> None:
    try:
        secret.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{secret.parent} cannot be made: {error.strerror}") from error
    tls.make_secret(secret)


def local_nodes(args: argparse.Namespace) -> tuple[int, Path]:
    """Return how many nodes ``--local-nodes`` asks for, and the run directory of their job."""
    nodes = count("--local-nodes", args.local_nodes, 1)
    if args.coordinator is not None or args.node_rank is not None or args.nnodes != "1":
        raise ConfigError("--local-nodes sets --nnodes, --coordinator and --node-rank itself; leave them out")
    run_dir = args.run_dir or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
    args.run_dir = run_dir.absolute()
    _credentials(args, make=True).server()  # what is wrong with them is told once, not by every agent
    return nodes, args.run_dir


def stand_at(args: argparse.Namespace, place: LocalNode) -> None:
    """Set the flags of one of the local nodes."""
    args.nnodes = str(place.nodes)
    args.coordinator = f"{LOOPBACK}:{place.port}"
    args.node_rank, args.node_name = str(place.rank), place.name
    args.run_dir = Path(place.run_dir)
    args.lease = args.lease or args.run_dir / "lease"
    args.returning = place.returning
