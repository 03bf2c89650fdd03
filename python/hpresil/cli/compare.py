"""``hpresil compare A B``: the first difference of two records."""

from __future__ import annotations

import argparse
import json
import sys

from hpresil.base.errors import HpresilError
from hpresil.telemetry.record import Difference, compare, read, show


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb ``compare``."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "compare",
        help="compare the records of two runs bit for bit",
        description="Compare steps, losses, gradient norms, samples and, where both have it, state. "
        "Exit status: 0 equal, 1 different, 2 a file is no readable record.",
    )
    parser.add_argument("a", metavar="A", help="a file written by --record")
    parser.add_argument("b", metavar="B", help="another one")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return parser


def main(args: argparse.Namespace) -> int:
    """Compare the two records and return the exit status."""
    try:
        difference = compare(args.a, args.b)
        steps = sum(1 for _ in read(args.a)) if difference is None else None
    except HpresilError as error:
        print(f"hpresil: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(_as_json(difference, steps)))
    elif difference is None:
        print(f"equal, {steps} steps")
    else:
        print("\n".join(_as_text(difference, args.a, args.b)))
    return 0 if difference is None else 1


def _as_text(difference: Difference, a: str, b: str) -> list[str]:
    if difference.field == "step":
        has, lacks = (a, b) if difference.b is None else (b, a)
        return [f"different: step {difference.step} is in {has} but not in {lacks}"]
    return [
        f"different: first at step {difference.step}, {difference.field}",
        f"  {show(difference.field, difference.a)}  {a}",
        f"  {show(difference.field, difference.b)}  {b}",
    ]


def _as_json(difference: Difference | None, steps: int | None) -> dict[str, object]:
    if difference is None:
        return {"equal": True, "steps": steps}
    found: dict[str, object] = {
        "step": difference.step,
        "field": difference.field,
        "a": difference.a,
        "b": difference.b,
    }
    if difference.field in ("loss", "grad_norm") and difference.a and difference.b:
        # As text: JSON has no NaN or infinity.
        found |= {
            "a_decimal": repr(float.fromhex(difference.a)),
            "b_decimal": repr(float.fromhex(difference.b)),
        }
    return {"equal": False, "difference": found}
