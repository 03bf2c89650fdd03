"""The typed stub describes the module, name by name and argument by argument."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import hpresil.native
from hpresil.base import spans
from hpresil.native import _core

STUB = Path(hpresil.native.__file__).with_name("_core.pyi")
TYPES_ONLY = {"FloatType", "BuiltWith", "CudaDevice", "CudaSelfTest", "FlatSource", "FetchReport"}
UNSEEN = ("__exit__", "__buffer__", "__cuda_array_interface__")
Signature = tuple[list[str], list[str], list[str]]  # arguments, keyword-only ones, the defaults


def of_ast(function: ast.FunctionDef) -> Signature:
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args) if a.arg != "self"]
    keywords = [a.arg for a in function.args.kwonlyargs]
    defaults = [*function.args.defaults, *(d for d in function.args.kw_defaults if d is not None)]
    return names, keywords, [ast.unparse(d) for d in defaults]


def described(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Signature | None]]:
    """Every public name of a stub's body with its signature; None for what is no function."""
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name not in TYPES_ONLY:
            yield prefix + node.name, None
            yield from described(node.body, node.name + ".")
        elif isinstance(node, ast.FunctionDef) and node.name not in UNSEEN:
            is_property = any(ast.unparse(d) == "property" for d in node.decorator_list)
            yield prefix + node.name, None if is_property else of_ast(node)
        elif isinstance(node, ast.AnnAssign) and not prefix:
            yield ast.unparse(node.target), None


def documented(function: object) -> list[Signature]:
    """The signatures that pybind11 writes into a function's docstring, one an overload."""
    signatures = []
    for line in (inspect.getdoc(function) or "").splitlines():
        found = re.match(r"^(?:\d+\. )?(\w+)\((.*)\) -> ", line)
        if found and "*args" not in line:
            parsed = ast.parse(f"def {found[1]}({found[2]}): ...").body[0]
            assert isinstance(parsed, ast.FunctionDef)
            signatures.append(of_ast(parsed))
    return signatures


def public(owner: object, prefix: str = "") -> set[str]:
    names = set()
    for name, value in vars(owner).items():
        if name.startswith("_") and name not in ("__init__", "__enter__"):
            continue
        if inspect.isclass(value) and value.__module__ == _core.__name__:
            names |= {name} | public(value, name + ".")
        elif name != "__init__" or documented(value):
            names.add(prefix + name)
    return names


def resolve(name: str) -> object:
    value: object = _core
    for part in name.split("."):
        value = inspect.getattr_static(value, part) if inspect.isclass(value) else getattr(value, part)
    return value.__func__ if isinstance(value, staticmethod) else value


def test_stub_and_module_have_the_same_names() -> None:
    stub = {name for name, _ in described(ast.parse(STUB.read_text()).body)} | {"NativeError"}
    assert stub == public(_core)


def test_every_function_of_the_stub_takes_the_arguments_of_the_module() -> None:
    compared = 0
    for name, signature in described(ast.parse(STUB.read_text()).body):
        if signature is not None:
            assert signature in documented(resolve(name)), name
            compared += 1
    assert compared > 30


def test_the_door_exports_what_the_module_has() -> None:
    hidden = {"push_trace_range", "pop_trace_range", "NativeError"}
    assert (
        set(hpresil.native.__all__) - {"show_spans", "PHASES"}
        == {name for name in public(_core) if "." not in name} - hidden
    )


def test_spans_may_be_shown_without_a_profiler() -> None:
    hpresil.native.show_spans()
    try:
        with spans.span("step"), spans.span("slot"):
            pass
    finally:
        spans.profile(None, None)
