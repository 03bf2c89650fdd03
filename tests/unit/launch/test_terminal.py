import os

import pytest

from hpresil.launch.marks import BEGIN_MARK, END_MARK
from hpresil.launch.terminal import Box, Terminal, drawn, last_lines


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "worker-1.log"
    path.write_text("")
    return path


def write(path, text):
    with path.open("a") as file:
        file.write(text)


def test_a_followed_workers_lines_have_its_name_in_front(log, capfd):
    terminal = Terminal()
    terminal.say("begins")
    terminal.follow(1, log, from_start=True)
    write(log, "first\nsecond\nno end")
    terminal.close()
    out, err = capfd.readouterr()
    assert out == "[w1] first\n[w1] second\n[w1] no end\n"
    assert err == "hpresil: begins\n"


def test_following_later_leaves_out_what_was_before(log, capfd):
    write(log, "before\n")
    terminal = Terminal()
    terminal.follow(1, log, from_start=False)
    terminal.unfollow(1)
    terminal.close()
    assert capfd.readouterr().out == ""


def test_a_marked_traceback_is_left_out(log, capfd):
    write(log, f"before\n{BEGIN_MARK} KeyError\nTraceback\nKeyError\n{END_MARK}\nafter\n")
    terminal = Terminal()
    terminal.follow(1, log, from_start=True)
    terminal.close()
    assert capfd.readouterr().out == "[w1] before\n[w1] after\n"
    assert last_lines(log) == "before\nafter"


def test_a_box_has_its_parts_and_nothing_in_it_is_markup(capfd):
    box = Box("worker 1 failed", (("who", "[bold]worker 1"), ("log", "/x/y")), "Traceback [red]", "the end")
    terminal = Terminal()
    terminal.show(box)
    terminal.close()
    err = capfd.readouterr().err
    for part in (
        "worker 1 failed",
        "[bold]worker 1",
        "/x/y",
        "Traceback [red]",
        "last lines of its log",
        "the end",
    ):
        assert part in err
    assert err == drawn(box)


def test_long_paths_are_not_broken_where_nobody_looks():
    path = "/a" * 60
    assert path in drawn(Box("x", (("log", path),)))


def test_a_terminal_that_is_gone_is_no_error(log, capfd):
    read, write_end = os.pipe()
    os.close(read)
    keep = os.dup(1)
    try:
        os.dup2(write_end, 1)
        terminal = Terminal()
        write(log, "line\n")
        terminal.follow(1, log, from_start=True)
        terminal.say("still here")
        terminal.close()
    finally:
        os.dup2(keep, 1)
        os.close(keep)
        os.close(write_end)
    assert "still here" in capfd.readouterr().err


def test_the_last_lines_of_a_log_that_is_not_there(tmp_path):
    assert last_lines(tmp_path / "none") == ""
