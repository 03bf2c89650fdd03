"""The command line: finds the verb and imports only its module, so that ``hpresil --help`` is quick."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

VERBS = {
    "run": "train: start workers and keep the job going whatever happens to them",
    "status": "show the running job",
    "resize": "change how many workers the running job has",
    "drain": "take a node out of the running job",
    "report": "show a finished or running job as a page: loss, faults, recoveries, where the time went",
    "trace": "write what every process did as a file for Perfetto",
    "demo": "lose workers on purpose, and prove that nothing shows",
    "data": "build a token file from text",
    "compare": "find the first difference of two records",
    "doctor": "show what was built and what this machine has",
}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and exit with status 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verb = arguments[0] if arguments else ""
    if verb in VERBS:
        return _run_verb(verb, arguments)
    parser = Parser(
        prog="hpresil",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Training that does not notice failures, preemptions or new machines.\n\nverbs:\n"
        + "\n".join(f"  {name:<9} {text}" for name, text in VERBS.items()),
        epilog="hpresil VERB --help shows the flags of a verb",
        usage="hpresil VERB ...",
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument("verb", nargs="?", help=argparse.SUPPRESS)
    known, _ = parser.parse_known_args(arguments)
    if known.version:
        from hpresil import __version__

        print(__version__)
        return 0
    if known.verb is not None:
        parser.error(f"{known.verb!r} is no verb; there are {', '.join(VERBS)}")
    parser.print_help()
    return 2


def _run_verb(verb: str, arguments: list[str]) -> int:
    from hpresil.base.errors import ConfigError, HpresilError

    module = import_module(f"hpresil.cli.{verb}")
    parser = Parser(prog="hpresil")
    module.add_parser(parser.add_subparsers(dest="verb", required=True))
    try:
        args = parser.parse_args(arguments)
        args.words = arguments
        status: int = module.main(args)
        return status
    except HpresilError as error:
        print(f"hpresil {verb}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except BrokenPipeError:
        sys.stderr.close()  # who reads our output has gone; the interpreter must not complain about it
        return 141
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
