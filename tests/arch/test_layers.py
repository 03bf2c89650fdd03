"""A line imports only from the lines above it, and only what is pure stands below a decision."""

from __future__ import annotations

import ast

LAYERS = (
    "base",
    "state",
    "elastic",
    "membership",
    "native",
    "telemetry",
    "snapshot",
    "comm",
    "data",
    "checkpoint",
    "runtime",
    "launch",
    "orchestrators",
    "chaos",
    "sim",
    "recipes",
    "cli",
)
PURE = (
    "elastic",
    "membership.machine",
    "comm.ladder",
    "comm.pool",
    "comm.transfer_plan",
    "comm.warming",
    "comm.watchdog",
    "runtime.step_machine",
    "data.order",
    "launch.hang",
    "launch.standstill",
    "telemetry.recovery",
    "telemetry.goodput",
    "telemetry.clocks",
)
# Importing these files is no business of a decision. `typing.TYPE_CHECKING` imports count as well: a
# decision that names a socket's type in a signature is no decision.
IMPURE = {"torch", "numpy", "asyncio", "socket", "threading", "random", "os", "time", "subprocess"}
NOT_YET = {("hpresil.telemetry.recovery", "hpresil.telemetry.events")}
"""Imports that are not followed although they should be: here the alias of an event, beside the log."""

BY_NAME = (  # who may import a module by a name that is computed, which this test cannot see
    "hpresil/__init__.py",  # the lazy public names
    "cli/main.py",  # the verb's module, of its own layer
)


def layer_of(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def inside(modules, imported):
    """Yield the modules of hpresil that one import loads, the packages they are in included."""
    for target in (imported.module, *(f"{imported.module}.{name}" for name in imported.names)):
        if target in modules:
            yield target
            package = target.rpartition(".")[0]
            if "." in package:  # hpresil itself imports nothing, its public names are looked up when used
                yield package


def test_every_package_has_its_layer(modules) -> None:
    packages = {layer_of(name) for name in modules} - {""}
    assert packages <= set(LAYERS), f"packages without a layer: {sorted(packages - set(LAYERS))}"


def test_a_line_imports_only_from_the_lines_above_it(modules) -> None:
    wrong = []
    for module in modules.values():
        mine = layer_of(module.name)
        if not mine:
            continue  # hpresil itself: its names are looked up when they are used
        for imported in module.imports():
            for target in inside(modules, imported):
                theirs = layer_of(target)
                if theirs and LAYERS.index(theirs) > LAYERS.index(mine):
                    wrong.append(f"{module.place}:{imported.line} ({mine}) imports {target} ({theirs})")
    assert not wrong, "\n".join(wrong)


def test_only_the_programs_import_the_package_itself(modules) -> None:
    programs = ("recipes", "cli")
    wrong = [
        f"{module.place}:{imported.line}"
        for module in modules.values()
        for imported in module.imports()
        if imported.module == "hpresil"
        and layer_of(module.name) not in programs
        and not all(f"hpresil.{name}" in modules for name in imported.names or ("?",))
    ]
    assert not wrong, f"these import the public names, which live above them: {wrong}"


def reached(modules, start):
    """Return each module that ``start`` loads, with the chain that leads there."""
    chains = {start: (start,)}
    queue = [start]
    while queue:
        name = queue.pop()
        for imported in modules[name].imports():
            for target in inside(modules, imported):
                if target not in chains and (name, target) not in NOT_YET:
                    chains[target] = (*chains[name], target)
                    queue.append(target)
    return chains


def test_decisions_reach_no_clock_socket_thread_or_tensor(modules) -> None:
    starts = [name for name in modules if any(f"{name}.".startswith(f"hpresil.{pure}.") for pure in PURE)]
    missing = [pure for pure in PURE if f"hpresil.{pure}" not in modules]
    assert not missing, f"pure modules that are not there: {missing}"
    wrong = set()
    for start in starts:
        for name, chain in reached(modules, start).items():
            for imported in modules[name].imports():
                if imported.module.split(".")[0] in IMPURE:
                    via = " → ".join(chain)
                    wrong.add(f"{modules[name].place}:{imported.line} imports {imported.module} (via {via})")
    assert not wrong, "\n".join(sorted(wrong))


def test_an_import_that_is_not_followed_is_still_there(modules) -> None:
    gone = [
        (name, target)
        for name, target in NOT_YET
        if target
        not in {found for imported in modules[name].imports() for found in inside(modules, imported)}
    ]
    assert not gone, f"these are gone, remove them from NOT_YET: {gone}"


def test_no_import_is_hidden_from_this_check(modules) -> None:
    wrong = []
    for module in modules.values():
        for node in ast.walk(module.tree):
            called = node.func if isinstance(node, ast.Call) else None
            name = getattr(called, "attr", getattr(called, "id", ""))
            if name in ("import_module", "__import__") and not module.place.endswith(BY_NAME):
                wrong.append(f"{module.place}:{node.lineno}")
    assert not wrong, f"imported by a name that is computed: {wrong}"
