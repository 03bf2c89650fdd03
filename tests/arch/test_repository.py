"""What is in the repository is about the software alone, and what its documents show can be run."""

from __future__ import annotations

import ast
import re

# Written apart, so that this file does not hold what it looks for.
MACHINE_PATHS = re.compile(
    "|".join(re.escape("/" + name + "/") for name in ("work", "root", "home")).encode()
)
LARGEST_TEXT_BYTES = 4 << 20


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_no_file_names_a_place_on_somebodys_machine(tracked_files, root) -> None:
    wrong = []
    for path in tracked_files:
        if path.stat().st_size > LARGEST_TEXT_BYTES:
            continue
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            if MACHINE_PATHS.search(line):
                wrong.append(f"{path.relative_to(root)}:{number}: {line[:100]!r}")
    assert not wrong, "\n".join(wrong)


def test_nothing_that_was_built_is_in_the_repository(tracked_files, root) -> None:
    built = {".so", ".pyc", ".o", ".a", ".whl"}
    wrong = [str(path.relative_to(root)) for path in tracked_files if path.suffix in built]
    assert not wrong


def test_the_training_loop_of_the_readme_is_python_of_ten_lines(root) -> None:
    loops = [b for b in blocks((root / "README.md").read_text(), "python") if "run.steps(" in b]
    assert len(loops) == 1
    tree = ast.parse(loops[0])
    loop = next(node for node in tree.body if isinstance(node, ast.For))
    assert (loop.end_lineno or 0) - loop.lineno + 1 <= 10
    called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert {"init", "track", "steps", "microbatches", "backward", "apply", "log"} <= called


def test_every_python_block_of_the_documents_parses(root) -> None:
    for page in [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("bench/**/*.md")]:
        for block in blocks(page.read_text(), "python"):
            ast.parse(block, str(page))


def test_every_link_between_the_documents_leads_somewhere(root) -> None:
    wrong = []
    for page in [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("bench/**/*.md")]:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
            if not (page.parent / target).exists():
                wrong.append(f"{page.relative_to(root)} → {target}")
    assert not wrong, "\n".join(wrong)
