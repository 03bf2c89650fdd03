"""docs/failure-model.md names for each fault a test that exists, and no fault test is left out."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "failure-model.md"
FAULTS = [ROOT / "tests" / "integration" / name for name in ("test_faults.py", "test_recovery_faults.py")]
HEADER = "| fault | noticed by | promised | test |"


def functions_in(path: Path) -> set[str]:
    body = ast.parse(path.read_text()).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef) and node.name[:5] == "test_"}


def fault_tests() -> set[str]:
    return {test for path in FAULTS for test in functions_in(path)}


def rows() -> list[list[str]]:
    lines = PAGE.read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [row for row in cells if row[0] not in ("fault", "---")]


def named(row: list[str]) -> list[str]:
    return re.findall(r"`(test_\w+|tests/[^`]+)`", row[3])


def test_every_fault_names_a_test() -> None:
    assert len(rows()) >= 25
    assert [row[0] for row in rows() if not named(row)] == []


def test_every_test_it_names_exists() -> None:
    for reference in (name for row in rows() for name in named(row)):
        path, _, test = reference.rpartition("::") if "::" in reference else (reference, "", "")
        if reference.startswith("test_"):
            assert reference in fault_tests(), f"no file of fault tests has {reference}"
            continue
        assert (ROOT / path).is_file(), f"{reference}: there is no file {path}"
        assert not test or test in functions_in(ROOT / path), f"{path} has no {test}"


def test_every_fault_that_is_tested_is_on_the_page() -> None:
    on_page = {name for row in rows() for name in named(row)}
    assert fault_tests() - on_page == set()
