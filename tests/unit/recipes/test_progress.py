import io

from rich.console import Console

from hpresil.recipes.demo.happenings import Ended, Lost, Started, StepCommitted, StoodBy, Viewed
from hpresil.recipes.demo.progress import Progress
from hpresil.recipes.demo.screen import LivePanel, PlainLines, headline, runs, screen


def watched() -> tuple[Progress, list[str]]:
    progress = Progress(slots=8, tokens=1024)
    seen = [
        Started(0, 10),
        Viewed(1, [0, 1, 2]),
        StoodBy(3),
        StepCommitted(0, 5.5, 1, 3, 10.0),
        StepCommitted(1, 5.25, 1, 3, 10.5),
        Lost(1, "killed"),
        Viewed(2, [0, 3, 2]),
        StepCommitted(2, 5.0, 2, 3, 11.0),
        Viewed(3, [0, 3]),
        Viewed(4, [0, 3, 4]),
        Ended(0, "drained"),
    ]
    return progress, [progress.observe(one) for one in seen]


def test_it_tells_the_story_in_words():
    assert [line for line in watched()[1] if line] == [
        "worker 0 started",
        "generation 1: formed with workers 0, 1, 2",
        "worker 3 is a spare now: model built, one dry step done",
        "worker 1 is lost: killed",
        "generation 2: worker 3 takes over",
        "step 2 committed by 3 workers",
        "generation 3: no spare is ready: the group shrinks, its slots move",
        "generation 4: the group grows: worker 4 joins",
        "the job ended with status 0: drained",
    ]


def test_the_numbers_are_those_of_the_last_steps():
    progress, _ = watched()
    assert headline(progress) == "step 2 · loss 5.0000 · 2,048 tokens/s · generation 4"
    assert progress.carried() == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_before_the_first_step_there_is_no_loss_to_show():
    assert headline(Progress(slots=8, tokens=1)) == "generation 0 · no step yet"


def test_slot_numbers_are_shortened():
    assert runs([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"
    assert runs([]) == ""


def test_a_pipe_gets_plain_lines_and_every_tenth_step():
    out = io.StringIO()
    progress = Progress(slots=8, tokens=1024)
    with screen(Console(file=out, width=100), "faults") as shown:
        assert isinstance(shown, PlainLines)
        for step in range(21):
            progress.observe(StepCommitted(step, 5.0, 1, 3, step / 2))
            shown.update(progress)
        shown.say("a [line] that stays")
    lines = out.getvalue().splitlines()
    assert lines[0] == "== faults"
    assert [line.split(" · ")[0] for line in lines[1:-1]] == ["   step 0", "   step 10", "   step 20"]
    assert lines[-1] == "a [line] that stays"


def test_a_terminal_gets_a_panel_with_members_and_spares():
    out = io.StringIO()
    progress, lines = watched()
    progress.observe(Started(5, 15))
    with screen(Console(file=out, width=100, force_terminal=True, color_system=None), "faults") as shown:
        assert isinstance(shown, LivePanel)
        for line in lines:
            shown.say(line)
        shown.update(progress)
    text = out.getvalue()
    for part in ("faults", "loss 5.0000", "███░░░░░ slots 0-2", "starting", "takes over"):
        assert part in text
