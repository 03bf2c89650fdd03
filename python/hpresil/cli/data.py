"""``hpresil data build|info|verify``: token files."""

from __future__ import annotations

import argparse
import sys

from hpresil.base.errors import HpresilError
from hpresil.data.build import build
from hpresil.data.format import FORMAT_VERSION, read_header, verify


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb ``data`` with its own verbs."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "data",
        help="build, describe and check token files",
        description="Build, describe and check token files.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    make = actions.add_parser(
        "build",
        help="make a token file from the bytes of text files",
        description="One token a byte, 256 between two files. Directories are searched in sorted order.",
    )
    make.add_argument("out", metavar="OUT", help="the token file to write")
    make.add_argument("inputs", metavar="INPUT", nargs="+", help="a text file, or a directory of them")
    make.add_argument(
        "--glob", default="*", metavar="PATTERN", help="which files below a directory to take (default: all)"
    )
    make.add_argument("--force", action="store_true", help="replace OUT if it exists")
    info = actions.add_parser("info", help="print what the header of a token file says")
    info.add_argument("path", metavar="PATH", help="the token file")
    check = actions.add_parser("verify", help="read a token file and compare every checksum")
    check.add_argument("path", metavar="PATH", help="the token file")
    return parser


def main(args: argparse.Namespace) -> int:
    """Run ``hpresil data ACTION`` and return the exit status: 0, or 1 with one line on stderr."""
    actions = {"build": _build, "info": _info, "verify": _verify}
    try:
        actions[args.action](args)
    except HpresilError as error:
        print(f"hpresil: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("hpresil: interrupted, nothing was written", file=sys.stderr)
        return 130
    return 0


def _build(args: argparse.Namespace) -> None:
    built = build(args.out, args.inputs, glob=args.glob, force=args.force)
    print(
        f"{built.path}: {built.header.tokens:,} tokens from {built.files:,} files "
        f"({built.text_bytes:,} bytes), "
        f"vocabulary {built.header.vocabulary}, {built.header.file_bytes:,} bytes on disk"
    )
    if built.empty:
        print(f"{built.empty:,} empty files were left out")
    if built.skipped:
        names = ", ".join(str(path) for path in built.skipped[:5])
        print(f"{len(built.skipped):,} entries were left out, they are no regular files: {names}")


def _info(args: argparse.Namespace) -> None:
    header = read_header(args.path)
    rows = {
        "file": args.path,
        "format": str(FORMAT_VERSION),
        "tokens": f"{header.tokens:,}",
        "documents": f"{header.documents:,}",
        "vocabulary": f"{header.vocabulary:,}",
        "bytes per token": str(header.token_bytes),
        "bytes on disk": f"{header.file_bytes:,}",
        "fingerprint": header.fingerprint,
    }
    for name, value in rows.items():
        print(f"{name:16} {value}")


def _verify(args: argparse.Namespace) -> None:
    header = verify(args.path)
    print(f"{args.path}: intact, {header.tokens:,} tokens in {header.blocks:,} blocks")
