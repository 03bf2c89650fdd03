"""Files are named after the one thing in them, and stay small enough to be read in one go."""

from __future__ import annotations

import ast
import re

MOST_LINES = 300
MOST_FUNCTION_LINES = 40
LARGER_FILES: dict[str, int] = {}
"""Files that may be larger, up to which size, and why."""

NO_THINGS = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "shared", "core"}
SOURCES = ("*.py", "*.cpp", "*.cu", "*.h", "*.inl")
NO_FUNCTION = re.compile(
    r"(if|for|while|switch|else|do|try|catch|struct|class|namespace|enum|union|extern)\b|.*\] ?(\(.*\))? ?\{$"
)


def product_files(root):
    for tree in (
        root / "python" / "hpresil",
        root / "csrc",
        root / "bench",
        root / "examples",
        root / "scripts",
    ):
        for pattern in SOURCES:
            yield from sorted(tree.rglob(pattern))


def test_a_file_is_named_after_the_thing_in_it(root) -> None:
    wrong = [
        str(path.relative_to(root))
        for tree in ("python", "csrc", "tests", "bench", "examples", "scripts")
        for path in (root / tree).rglob("*")
        if path.stem.removeprefix("test_") in NO_THINGS and "__pycache__" not in path.parts
    ]
    assert not wrong, f"these names say nothing: {wrong}"


def test_no_file_is_larger_than_one_can_read_in_one_go(root) -> None:
    wrong = []
    for path in product_files(root):
        place = str(path.relative_to(root))
        lines = len(path.read_text().splitlines())
        if lines > LARGER_FILES.get(place, MOST_LINES):
            wrong.append(f"{place}: {lines} lines")
    assert not wrong, f"more than {MOST_LINES} lines: {wrong}"


def test_a_file_that_may_be_larger_still_is(root) -> None:
    smaller = [
        place
        for place in LARGER_FILES
        if not (root / place).exists() or len((root / place).read_text().splitlines()) <= MOST_LINES
    ]
    assert not smaller, f"no longer larger than {MOST_LINES} lines, remove them from the list: {smaller}"


def test_no_python_function_is_longer_than_a_screen(root) -> None:
    wrong, folders = [], set()
    for path in product_files(root):
        if path.suffix != ".py":
            continue
        place = path.relative_to(root)
        folders.add(place.parts[0])
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                # What is counted is the code: a long docstring makes no function hard to follow.
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = 1 + (node.end_lineno or 0) - body[0].lineno if body else 0
                if lines > MOST_FUNCTION_LINES:
                    wrong.append(f"{place}:{node.lineno} {node.name}: {lines} lines")
    assert folders >= {"python", "bench"}, f"only files in {folders} were found"
    assert not wrong, f"more than {MOST_FUNCTION_LINES} lines:\n" + "\n".join(wrong)


def functions(text):
    """Yield (line, head, lines) of each function in clang-formatted C++: it ends at a `}` of its indent."""
    lines = text.splitlines()
    for begin, line in enumerate(lines):
        head = line.strip()
        if not line.endswith("{") or "(" not in " ".join(lines[max(0, begin - 5) : begin + 1]):
            continue
        if re.match(
            r"(if|for|while|switch|else|do|try|catch|struct|class|namespace|enum|union|extern)\b", head
        ):
            continue
        indent = len(line) - len(line.lstrip())
        for end in range(begin + 1, len(lines)):
            if lines[end].startswith(" " * indent + "}"):
                yield begin + 1, head, end - begin + 1
                break


def test_no_native_function_is_longer_than_a_screen(root) -> None:
    wrong, seen = [], 0
    for path in product_files(root):
        if path.suffix == ".py":
            continue
        for line, head, lines in functions(path.read_text()):
            seen += 1
            if lines > MOST_FUNCTION_LINES:
                wrong.append(f"{path.relative_to(root)}:{line} {head} {lines} lines")
    assert seen > 50, f"only {seen} functions were found in csrc: is the file's format another one?"
    assert not wrong, f"more than {MOST_FUNCTION_LINES} lines:\n" + "\n".join(wrong)
