"""Nothing that is read is ever run: no pickle, no eval, no torch.load, anywhere in the product."""

from __future__ import annotations

import ast

MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "dbm"}
CALLS = {"eval", "exec", "compile", "execfile"}
METHODS = {
    ("torch", "load"),
    ("torch", "save"),
    ("numpy", "load"),
    ("np", "load"),
    ("jit", "load"),
    ("dist", "broadcast_object_list"),
    ("dist", "all_gather_object"),
    ("dist", "gather_object"),
    ("dist", "scatter_object_list"),
    ("dist", "send_object_list"),
    ("dist", "recv_object_list"),
}
THE_USERS_SCRIPT = "launch/worker_process.py"
"""The one place that runs code: the script that the user named on the command line."""
FREE_FORM = "snapshot/values.py"
"""Python values of no fixed shape, which the reader takes apart by a closed table of its own."""


def test_no_module_imports_what_unpickles(modules) -> None:
    wrong = [
        f"{module.place}:{imported.line} imports {imported.module}"
        for module in modules.values()
        for imported in module.imports()
        if {imported.module.split(".")[0], *imported.names} & MODULES
    ]
    assert not wrong, "\n".join(wrong)


def test_no_module_runs_or_unpickles_what_it_reads(modules) -> None:
    wrong = []
    for module in modules.values():
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            if isinstance(called, ast.Name) and called.id in CALLS:
                if not module.place.endswith(THE_USERS_SCRIPT):
                    wrong.append(f"{module.place}:{node.lineno} calls {called.id}()")
            elif isinstance(called, ast.Attribute):
                owner = getattr(called.value, "id", getattr(called.value, "attr", ""))
                if (owner, called.attr) in METHODS:
                    wrong.append(f"{module.place}:{node.lineno} calls {owner}.{called.attr}()")
    assert not wrong, "\n".join(wrong)


def test_the_worker_runs_the_users_script_in_one_place_only(modules) -> None:
    runs = [
        node.lineno
        for module in modules.values()
        if module.place.endswith(THE_USERS_SCRIPT)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "exec"
    ]
    assert len(runs) == 1


def test_messages_are_decoded_against_a_schema(modules) -> None:
    wrong = []
    for module in modules.values():
        if module.place.endswith(FREE_FORM):
            continue
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = getattr(node.func.value, "attr", getattr(node.func.value, "id", ""))
            typed = any(keyword.arg == "type" for keyword in node.keywords)
            decodes = (owner, node.func.attr) == ("msgpack", "decode")
            makes = (owner, node.func.attr) == ("msgpack", "Decoder")
            if (decodes and not typed) or (makes and not typed and not node.args):
                wrong.append(f"{module.place}:{node.lineno}")
    assert not wrong, f"MessagePack is decoded without a type: {wrong}"
