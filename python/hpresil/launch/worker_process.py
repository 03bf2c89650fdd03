"""The first code of every worker process: it ties the process to its agent, then runs the user's script.

Before the script imports anything, so that no second of its life is unwatched:

1. the kernel is told to kill this process when the agent dies;
2. the liveness page is held, the trace attached, and the handlers of fatal signals are installed, Python's
   among them, which writes to the log (`runtime.presence`);
3. it shows once a second that its interpreter lock can be had, and answers a question for its stacks.

Then the script runs as `python script.py` would run it: same `sys.argv`, same `sys.path[0]`, as `__main__`,
same exit status. An uncaught exception is written to the log between two marker lines, so that the terminal
can leave out what is shown in a box already, and to ``worker-N.error.json``. If the script leaves inside a
step, however it does, the agent is told at once, because the other members wait.

With ``--no-python`` the program replaces this one; it is tied to the agent, but holds no page until it calls
`hpresil.init`.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import sys
import traceback
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import TracebackType
from typing import Any

from hpresil.base import spans
from hpresil.base.errors import HpresilError, JobStopped
from hpresil.base.phases import PHASES
from hpresil.launch import fork_server
from hpresil.launch.marks import BEGIN_MARK, END_MARK
from hpresil.native import Page, set_pdeathsig
from hpresil.runtime import presence

IN_STEP = frozenset({"computing", "waiting", "applying", "tail", "restoring"})
HERE = Path(__file__).resolve()
PACKAGE = HERE.parents[1]


def main() -> None:
    """Run the command that follows ``-c STARTER`` on the command line."""
    kind, *command = sys.argv[1:]
    tie_to_agent()
    if fork_server.CONTROL in os.environ:
        fork_server.serve(socket.socket(fileno=int(os.environ.pop(fork_server.CONTROL))))
        tie_to_agent()  # a worker now, forked a moment ago
    if kind == "program":
        os.execvp(command[0], command)
    page = presence.hold(os.environ)
    spans.begin("import")
    try:
        run(kind, command)
    except SystemExit as leaving:
        give_notice(page, exit_status(leaving))
        raise
    except BaseException as error:
        status = 130 if isinstance(error, KeyboardInterrupt) else 1
        report(error, page)
        give_notice(page, status)
        sys.exit(status)


def tie_to_agent() -> None:
    """Die with the agent, also if it died before this line."""
    set_pdeathsig(signal.SIGKILL)
    if os.getppid() != int(os.environ["HPRESIL_AGENT_PID"]):
        os.kill(os.getpid(), signal.SIGKILL)


def run(kind: str, command: list[str]) -> None:
    """Run a script or a module as ``__main__`` in this process."""
    sys.argv = command
    if kind == "module":
        if not sys.flags.safe_path:
            sys.path.insert(0, os.getcwd())
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
        return
    script = command[0]
    if not sys.flags.safe_path:
        sys.path.insert(0, os.path.dirname(os.path.realpath(script)))
    with open(script, "rb") as file:
        code = compile(file.read(), script, "exec", dont_inherit=True)
    # A module of its own that stays: what the script leaves behind (threads, exit handlers, pickled
    # classes) still finds its globals after the last line has run.
    module = types.ModuleType("__main__")
    module.__dict__.update(__file__=script, __builtins__=__builtins__, __cached__=None)
    module.__spec__: ModuleSpec | None = None  # type: ignore[misc]
    sys.modules["__main__"] = module
    exec(code, module.__dict__)


def exit_status(leaving: SystemExit) -> int:
    """Return the status with which the interpreter is going to exit."""
    if leaving.code is None:
        return 0
    return leaving.code & 0xFF if isinstance(leaving.code, int) else 1


def give_notice(page: Page, status: int) -> None:
    """Tell the agent at once that this process ends, with which status, if others wait for it.

    The interpreter's own way out takes a tenth of a second and more.
    """
    if PHASES[page.read().phase] not in IN_STEP:
        return
    try:
        write_whole(log_file("exit"), f"{status}\n")
    except OSError:
        return
    page.give_notice()


def log_file(kind: str) -> Path:
    """Return a file beside this worker's log."""
    return Path(os.environ["HPRESIL_LOG_DIR"]) / f"worker-{os.environ['HPRESIL_WORKER']}.{kind}"


def report(error: BaseException, page: Page) -> None:
    """Write down what ended this worker."""
    state = page.read()
    if isinstance(error, JobStopped):
        print(f"hpresil: {error}", file=sys.stderr, flush=True)
        return
    text = "".join(traceback.format_exception(type(error), error, user_part(error)))
    place = {"step": state.step, "slot": state.slot}
    facts: dict[str, Any] = {"type": type(error).__name__, "message": str(error), "traceback": text, **place}
    try:
        sys.stdout.flush()
        write_whole(log_file("error.json"), json.dumps(facts) + "\n")
        os.write(2, f"{BEGIN_MARK} {facts['type']}\n{text.rstrip()}\n{END_MARK}\n".encode(errors="replace"))
    except OSError:
        sys.stderr.write(text)  # a full disk: the log gets what it can


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there completely or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def user_part(error: BaseException) -> TracebackType | None:
    """Return the traceback without this file's frames, and for our own errors without hpresil's."""
    trace = error.__traceback__
    while trace is not None and _is_ours(trace, HERE):
        trace = trace.tb_next
    if trace is None or not isinstance(error, HpresilError):
        return trace
    frames = []
    entry: TracebackType | None = trace
    while entry is not None and not _is_ours(entry, PACKAGE):
        frames.append(entry)
        entry = entry.tb_next
    shown: TracebackType | None = None
    for frame in reversed(frames):
        shown = TracebackType(shown, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return shown


def _is_ours(trace: TracebackType, where: Path) -> bool:
    name = trace.tb_frame.f_code.co_filename
    return name.startswith("<frozen runpy") or Path(name).is_relative_to(where)
