"""Wishes of people for a running job: asked over a Unix socket of the agent, answered by the coordinator.

One connection, one wish: a line of JSON of at most `MAX_WISH_BYTES`, within `ASK_S`,

    {"verb": "drain", "node": "b"}        {"verb": "resize", "workers": 3}

then lines of JSON as they come: at once that it is refused or accepted, and when it is done.

    {"text": "node b is drained", "done": true, "failed": false}

Only processes of the agent's own user are heard, and at most `MAX_ASKING` may wait for an answer. The wish
itself goes to the coordinator as a message, from whichever node it is asked on. It holds even if whoever
asked does not wait.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

from hpresil.base.deadline import now
from hpresil.base.errors import ConfigError
from hpresil.launch.status import NotRunning
from hpresil.membership import endpoint, messages as m

MAX_WISH_BYTES = 4096
MAX_ANSWER_BYTES = 1 << 16
MAX_ASKING = 32
ASK_S = 5.0


class Control:
    """The agent's side. Single-threaded, in its event loop.

    Args:
        node: This node.
        say: Sends a message to the coordinator.
    """

    def __init__(self, node: str, say: Callable[[m.FromAgent], None]) -> None:
        self._node, self._say = node, say
        self._asking: dict[int, asyncio.Queue[m.Answered]] = {}
        self._requests = 0

    async def open(self, path: Path, stack: AsyncExitStack) -> None:
        """Listen at ``path`` until ``stack`` is closed."""
        sock = endpoint.listening_socket(path)
        server = await asyncio.start_unix_server(self._serve, sock=sock, limit=MAX_WISH_BYTES)
        stack.callback(server.close)

    def answered(self, answer: m.Answered) -> None:
        """Pass on what the coordinator answers."""
        waiting = self._asking.get(answer.request)
        if waiting is not None:
            waiting.put_nowait(answer)

    def over(self, why: str) -> None:
        """Tell everybody who still waits that no answer will come."""
        for request in self._asking:
            self.answered(m.Answered(node=self._node, request=request, text=why, failed=True))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._requests += 1
        request = self._requests
        try:
            if not endpoint.is_same_user(writer.get_extra_info("socket")):
                return
            async with asyncio.timeout(ASK_S):
                wish = _wish(await reader.readuntil(b"\n"), self._node, request)
            if len(self._asking) >= MAX_ASKING:
                _write(writer, f"{MAX_ASKING} others wait for an answer of this agent already", failed=True)
                return
            answers = self._asking[request] = asyncio.Queue()
            self._say(wish)
            await _pass_on(answers, reader, writer)
        except ValueError as error:
            _write(writer, f"that is no wish: {error}", failed=True)
        except asyncio.LimitOverrunError:
            _write(writer, f"that is no wish: it has more than {MAX_WISH_BYTES} bytes", failed=True)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # whoever it was has nothing to say, or has gone
        finally:
            self._asking.pop(request, None)
            writer.close()


async def _pass_on(
    answers: asyncio.Queue[m.Answered], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Write the answers, until the last one or until nobody listens any more."""
    hung_up = asyncio.create_task(reader.read(1))
    try:
        while True:
            next_one = asyncio.create_task(answers.get())
            await asyncio.wait({next_one, hung_up}, return_when=asyncio.FIRST_COMPLETED)
            if not next_one.done():
                next_one.cancel()
                return
            answer = next_one.result()
            _write(writer, answer.text, done=answer.done, failed=answer.failed)
            if answer.done:
                return
    finally:
        hung_up.cancel()


def _write(writer: asyncio.StreamWriter, text: str, *, done: bool = True, failed: bool = False) -> None:
    writer.write(json.dumps({"text": text, "done": done, "failed": failed}).encode() + b"\n")


def _wish(line: bytes, node: str, request: int) -> m.FromAgent:
    """Return the message for a line. Raises ValueError if it is no wish."""
    match json.loads(line):
        case {"verb": "drain", "node": str(target)}:
            return m.NodeDrainRequested(node=node, request=request, target=target)
        case {"verb": "resize", "workers": int(workers)} if abs(workers) < 1 << 31:
            return m.ResizeRequested(node=node, request=request, workers=int(workers))
    raise ValueError('give {"verb": "drain", "node": NAME} or {"verb": "resize", "workers": NUMBER}')


class Answer(NamedTuple):
    """What became of a wish. ``done``: False if it was accepted and still goes on."""

    text: str
    done: bool
    failed: bool


def ask(run_dir: Path, wish: dict[str, Any], timeout_s: float) -> Answer:
    """Ask the job that runs in ``run_dir`` and wait until the wish is done or refused.

    Args:
        run_dir: The run directory of the job, or that of one of its nodes.
        wish: As above.
        timeout_s: How long to wait; 0: only until the wish is accepted.

    Raises:
        ConfigError: The wish is too long.
        NotRunning: No job runs there, or its coordinator does not answer.
    """
    line = json.dumps(wish).encode() + b"\n"
    if len(line) > MAX_WISH_BYTES:
        raise ConfigError(f"a wish of {len(line)} bytes is too long; at most {MAX_WISH_BYTES} are possible")
    if not run_dir.is_dir():
        raise NotRunning(f"{run_dir} does not exist; name the directory of a running job with --run-dir")
    last = None
    try:
        facts = json.loads((run_dir / "agent.json").read_text())
        for last in _answers(facts["control"], line, timeout_s):
            if last.done or timeout_s == 0:
                return last
    except FileNotFoundError:
        raise NotRunning(f"no job runs in {run_dir} now") from None
    except TimeoutError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotRunning(f"no job runs in {run_dir}: its agent has gone without a word ({error})") from None
    if last is None:
        raise NotRunning(f"the coordinator of {run_dir} did not answer; hpresil status shows what it does")
    return last


def _answers(path: str, line: bytes, timeout_s: float) -> Iterator[Answer]:
    """Yield the answers as they come. Raises TimeoutError after ``timeout_s``, at least `ASK_S`."""
    end = now() + max(timeout_s, ASK_S)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(ASK_S)
        sock.connect(path)
        sock.sendall(line)
        data = b""
        while len(data) < MAX_ANSWER_BYTES:
            sock.settimeout(max(0.01, end - now()))
            more = sock.recv(1 << 12)
            if not more:
                return
            *lines, data = (data + more).split(b"\n")
            for whole in lines:
                yield Answer(**json.loads(whole))
            if now() >= end:
                raise TimeoutError
