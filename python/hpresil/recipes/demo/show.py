"""The demo from beginning to end: corpus, the run with faults, the same undisturbed, the verdicts.

The demo trains nothing itself, so torch is not imported before the last job runs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from hpresil.base.deadline import Deadline
from hpresil.base.errors import JobStopped
from hpresil.recipes.corpus import build_corpus
from hpresil.recipes.demo.conductor import Act, Conductor, Part, Script
from hpresil.recipes.demo.happenings import happening
from hpresil.recipes.demo.job import Job
from hpresil.recipes.demo.progress import Progress
from hpresil.recipes.demo.report import KINDS, NODE_KINDS, FaultRow, fault_rows, missing
from hpresil.recipes.demo.screen import Screen, screen
from hpresil.recipes.demo.verdicts import Batches, Verdict, bit_identical, exactly_once
from hpresil.telemetry import story
from hpresil.telemetry.events import Event
from hpresil.telemetry.recovery import recoveries
from hpresil.telemetry.report import page
from hpresil.telemetry.story import write_injected

POLL_S = 0.05
UNDISTURBED_TIMEOUT_S = 600.0
SEQ_LEN = 64
PLANNED_STEPS = 600  # the learning rate's length; the demo leaves long before
BATCHES = Batches(samples=0, slots=8, microbatches=1, microbatch_size=2, seed=0)
TOKENS = BATCHES.slots * BATCHES.microbatches * BATCHES.microbatch_size * SEQ_LEN
WORDS = {
    "kill": "the demo kills worker {worker} ({why}) with SIGKILL",
    "stop": "the demo stops worker {worker} ({why}) with SIGSTOP: it hangs from here on",
    "lose_node": "the demo kills the agent of {why}, and with it all workers there",
    "hold": "the demo keeps worker {worker} from starting up: {why}",
    "let_go": "the demo lets worker {worker} start up: {why}",
    "drain": "the demo asks the job to finish its step and leave: {why}",
}


@dataclass(frozen=True)
class Result:
    """What the demo found.

    ``problems`` are reasons to fail besides the verdicts, ``reports`` the pages to look at.
    """

    verdicts: dict[str, Verdict]
    rows: list[FaultRow]
    problems: list[str]
    reports: list[Path]

    def holds(self) -> bool:
        """Return whether all verdicts hold and every fault fired and was recovered from."""
        return not self.problems and all(verdict.holds for verdict in self.verdicts.values())


def show(directory: Path, script: Script, console: Console) -> Result:
    """Run the demo in ``directory``, which must be empty.

    Raises:
        JobStopped: a job could not be started, or ended before its time.
        DataError: the corpus cannot be built.
    """
    _corpus(directory, console)
    where = f" on {script.nodes} nodes" if script.nodes > 1 else ""
    with screen(console, f"{script.workers} workers, 1 spare{where}, faults") as shown:
        conductor, events = _with_faults(directory, script, shown)
    steps = 1 + max((event["step"] for event in events if event["event"] == "StepCommitted"), default=-1)
    if not steps:
        raise JobStopped(f"the job with faults committed no step; see {directory / 'faults.log'}")
    with screen(console, f"the same {steps} steps, 1 worker, undisturbed") as shown:
        _undisturbed(directory, steps, shown)
    rows = fault_rows(
        recoveries(events, dict(conductor.faults.values())),
        {kind: worker for kind, (worker, _) in conductor.faults.items()},
    )
    write_injected(directory / "faults", conductor.faults)
    kinds = NODE_KINDS if script.nodes > 1 else KINDS
    problems = [conductor.problem] if conductor.problem else []
    problems += [f"there was no recovery of kind {kind!r}" for kind in missing(rows, kinds)]
    return Result(_verdicts(directory, steps), rows, problems, _reports(directory))


def _reports(directory: Path) -> list[Path]:
    """Write a report of each run."""
    written = []
    for name in ("faults", "undisturbed"):
        found = story.read(directory / name)
        written.append(directory / f"{name}.html")
        page.write(page.html(found, page.figures(found)), written[-1])
    return written


def _verdicts(directory: Path, steps: int) -> dict[str, Verdict]:
    from hpresil.data.tokens import TokenDataset

    record = directory / "faults.jsonl"
    batches = replace(BATCHES, samples=len(TokenDataset(directory / "corpus.tokens", seq_len=SEQ_LEN)))
    return {
        "bit_identical": bit_identical(record, directory / "undisturbed.jsonl"),
        "exactly_once": exactly_once(record, batches, steps=steps),
    }


def _corpus(directory: Path, console: Console) -> None:
    started = time.monotonic()
    built = build_corpus(directory / "corpus.tokens")
    console.print(
        f"corpus: the source code of Python's standard library, {built.files:,} files, "
        f"{built.header.tokens:,} byte tokens, built in {time.monotonic() - started:.1f} s",
        highlight=False,
        soft_wrap=True,
    )


def _arguments(directory: Path, name: str, workers: int, spares: int) -> list[str]:
    """Return the flags of ``hpresil run`` and the script's, without a step limit."""
    flags = {
        "--nproc-per-node": workers,
        "--spares": spares,
        "--slots": BATCHES.slots,
        "--microbatches": BATCHES.microbatches,
        "--microbatch-size": BATCHES.microbatch_size,
        "--seed": BATCHES.seed,
        "--record": directory / f"{name}.jsonl",
        "--record-state-every": 5,
        "-m": "hpresil.recipes.llama.train",
        "--data": directory / "corpus.tokens",
        "--seq-len": SEQ_LEN,
        "--steps": PLANNED_STEPS,
    }
    return [text for flag, value in flags.items() for text in (flag, str(value))]


def _with_faults(directory: Path, script: Script, shown: Screen) -> tuple[Conductor, list[Event]]:
    """Run the job and harm it as ``script`` says; return the conductor and the job's events."""
    arguments = _arguments(directory, "faults", script.workers, 1)
    if script.nodes > 1:
        share = -(-(script.workers + 1) // script.nodes)
        nodes = ["--local-nodes", script.nodes, "--nproc-per-node", share, "--workers", script.workers]
        arguments = [*map(str, nodes), *arguments[2:]]
    conductor = Conductor(script, now=time.monotonic())
    progress = Progress(slots=BATCHES.slots, tokens=TOKENS)
    seen: list[Event] = []
    started = time.monotonic()
    with Job(arguments, run_dir=directory / "faults", output=directory / "faults.log") as job:
        while conductor.part is not Part.OVER:
            ended = job.status() is not None
            fresh = job.events()
            for event in fresh:
                _follow(job, conductor, event, progress, shown, started)
            seen += fresh
            _perform(job, conductor.tick(time.monotonic()), shown, started)
            shown.update(progress)
            if ended and not fresh:
                raise JobStopped(f"the job with faults ended early:\n{job.last_lines()}")
            time.sleep(POLL_S)
        _await_end(job, 30.0)
    return conductor, seen


def _follow(
    job: Job, conductor: Conductor, event: Event, progress: Progress, shown: Screen, started: float
) -> None:
    one = happening(event)
    if one is None:
        return
    line = progress.observe(one)
    if line:
        shown.say(_at(event["t"] - started, line))
    _perform(job, conductor.observe(one, time.monotonic()), shown, started)


def _perform(job: Job, acts: list[Act], shown: Screen, started: float) -> None:
    for act in acts:
        there = job.act(act)
        line = WORDS[act.deed].format(worker=act.worker, why=act.why)
        shown.say(_at(time.monotonic() - started, line if there else f"{line}; it was gone already"))


def _at(seconds: float, line: str) -> str:
    return f"{seconds:6.1f} s  {line}"


def _undisturbed(directory: Path, steps: int, shown: Screen) -> None:
    """Train the same steps with one worker."""
    arguments = [*_arguments(directory, "undisturbed", 1, 0), "--stop-at", str(steps)]
    progress = Progress(slots=BATCHES.slots, tokens=TOKENS)
    started = time.monotonic()
    deadline = Deadline(UNDISTURBED_TIMEOUT_S, "the end of the undisturbed run")
    output = directory / "undisturbed.log"
    with Job(arguments, run_dir=directory / "undisturbed", output=output) as job:
        from hpresil.data import tokens  # noqa: F401  (imports torch: now, while a core is idle)

        while True:
            ended = job.status() is not None
            for event in job.events():
                one = happening(event)
                line = progress.observe(one) if one is not None else ""
                if line:
                    shown.say(_at(event["t"] - started, line))
            shown.update(progress)
            if ended:
                break
            deadline.check()
            time.sleep(POLL_S)
        _await_end(job, 0.0)


def _await_end(job: Job, timeout_s: float) -> None:
    """Wait for the launcher's end and check its status."""
    deadline = Deadline(timeout_s, "the end of the launcher")
    while job.status() is None and not deadline.expired():
        time.sleep(POLL_S)
    if job.status() != 0:
        raise JobStopped(f"the launcher's exit status is {job.status()}:\n{job.last_lines()}")
