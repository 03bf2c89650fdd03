"""The package's face: few names, all of them real, and cheap to import."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import pytest

import hpresil

MOST_NAMES = 15
FRESH = """
import json, sys, time
begin = time.process_time()
import hpresil
spent = time.process_time() - begin
print(json.dumps({"spent_s": spent, "modules": sorted(sys.modules)}))
"""


def test_importing_the_package_loads_neither_torch_nor_numpy() -> None:
    # The interpreter's own start is not in the time; 0.2 s of processor time is ten times what it takes.
    ran = subprocess.run([sys.executable, "-c", FRESH], check=True, capture_output=True, timeout=60)
    seen = json.loads(ran.stdout)
    loaded = {name.split(".")[0] for name in seen["modules"]}
    assert not loaded & {"torch", "numpy", "safetensors", "rich", "msgspec"}
    assert [name for name in seen["modules"] if name.startswith("hpresil.")] == []
    assert seen["spent_s"] < 0.2


def test_all_is_exactly_what_is_public() -> None:
    assert len(hpresil.__all__) <= MOST_NAMES
    assert hpresil.__all__ == sorted(set(hpresil.__all__))
    assert {name for name in dir(hpresil) if not name.startswith("_")} == set(hpresil.__all__)


def test_every_public_name_can_be_imported_and_has_a_docstring() -> None:
    for name in hpresil.__all__:
        value = getattr(hpresil, name)
        assert value.__name__ in (name, f"hpresil.{name}")
        assert (value.__doc__ or "").strip(), f"hpresil.{name} has no docstring"


def test_an_unknown_name_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"'Trainer'.*TokenDataset"):
        hpresil.Trainer  # noqa: B018


def test_type_checkers_see_the_same_names_at_the_same_place(modules) -> None:
    declared = {
        name: imported.module.removeprefix("hpresil.")
        for imported in modules["hpresil"].imports()
        if imported.module.startswith("hpresil.")
        for name in imported.names
    }
    assert declared == hpresil._WHERE
    parts = {name for one in modules["hpresil"].imports() if one.module == "hpresil" for name in one.names}
    assert parts == set(hpresil._PACKAGES)


def test_a_package_above_another_says_what_it_is(modules) -> None:
    silent = [module.place for module in modules.values() if not ast.get_docstring(module.tree)]
    assert not silent, f"modules without a docstring: {silent}"
