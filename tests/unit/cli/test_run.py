import argparse
import socket
import subprocess
import sys

import pytest

from hpresil.base.config import FIELDS, Config
from hpresil.base.errors import ConfigError
from hpresil.cli import run
from hpresil.cli.job_of_flags import job_of, shown_workers
from hpresil.cli.main import VERBS, Parser, main


@pytest.fixture
def parse(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("")
    for name in list(__import__("os").environ):
        if name.startswith("HPRESIL_"):
            monkeypatch.delenv(name)

    def job(*flags, script=("train.py",)):
        parser = Parser(prog="hpresil")
        run.add_parser(parser.add_subparsers(dest="verb"))
        return job_of(parser.parse_args(["run", *flags, *script]))

    return job


def refused(parse, *flags, script=("train.py",)):
    with pytest.raises(ConfigError) as caught:
        parse(*flags, script=script)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_defaults_are_torchruns(parse):
    job = parse()
    assert (job.workers, job.spares, job.min_workers, job.role) == (1, 0, 1, "default")
    assert (job.kind, job.command, job.settings, job.config) == ("script", ("train.py",), {}, Config())
    assert job.run_id
    assert job.shown is None


@pytest.mark.parametrize("flag", ["--nproc-per-node", "--nproc_per_node"])
def test_both_spellings_of_torchrun_are_known(parse, flag):
    assert parse(flag, "3").workers == 3
    assert parse(f"{flag}=3").workers == 3


def test_what_follows_the_script_belongs_to_it(parse):
    job = parse("--spares", "1", script=("train.py", "--spares", "7", "-m", "--slots", "x", "--", "y"))
    assert job.spares == 1
    assert job.command == ("train.py", "--spares", "7", "-m", "--slots", "x", "--", "y")


def test_a_module_and_a_program(parse):
    assert parse("-m", script=("package.entry", "--lr", "1")).kind == "module"
    job = parse("--no-python", script=("sh", "-c", "true"))
    assert (job.kind, job.command[1:]) == ("program", ("-c", "true"))
    assert job.command[0].startswith("/")


def test_settings_become_variables_for_the_workers(parse):
    job = parse("--slots", "16", "--hang-timeout-min-s", "1.5")
    assert (job.config.slots, job.config.hang_timeout_min_s) == (16, 1.5)
    assert job.settings == {
        "HPRESIL_SLOTS": "16",
        "HPRESIL_HANG_TIMEOUT_MIN_S": "1.5",
    }


def test_a_flag_wins_over_a_variable_and_a_variable_over_the_file(parse, monkeypatch, tmp_path):
    (tmp_path / "job.toml").write_text("seed = 1\nslots = 4\nmicrobatches = 2\n")
    monkeypatch.setenv("HPRESIL_SEED", "2")
    job = parse("--config", "job.toml", "--slots", "32")
    assert (job.config.seed, job.config.slots, job.config.microbatches) == (2, 32, 2)
    assert job.settings["HPRESIL_CONFIG"] == str(tmp_path / "job.toml")


@pytest.mark.parametrize("name", list(FIELDS))
def test_every_setting_has_its_flag(parse, name):
    default = FIELDS[name].default
    text = str(default).lower() if isinstance(default, bool) else str(default)
    assert parse("--" + name.replace("_", "-"), text).settings


@pytest.mark.parametrize("flag", [*run.REFUSED, *run.REFUSED_SWITCHES])
def test_flags_without_a_meaning_are_refused_with_a_reason(parse, flag):
    value = () if flag in run.REFUSED_SWITCHES else ("x",)
    message = refused(parse, flag, *value)
    assert message.startswith(f"{flag}: ")
    assert message.endswith("; leave the flag out")


def test_all_flags_of_torchrun_are_known(parse):
    distributed = pytest.importorskip("torch.distributed.run")
    theirs = {flag for action in distributed.get_args_parser()._actions for flag in action.option_strings}
    parser = Parser(prog="hpresil")
    ours = run.add_parser(parser.add_subparsers(dest="verb"))
    known = {flag for action in ours._actions for flag in action.option_strings}
    assert theirs - known == set()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--nproc-per-node", "0"],
            "--nproc-per-node 0: give a whole number of at least 1, cpu, gpu or auto",
        ),
        (["--nproc-per-node", "many"], "--nproc-per-node many: give a whole number"),
        (["--spares", "-1"], "--spares -1: give a whole number of at least 0"),
        (
            ["--min-workers", "3", "--nproc-per-node", "2"],
            "--min-workers 3 is more than the 2 workers of the job",
        ),
        (["--max-restarts", "x"], "--max-restarts x"),
        (["--nnodes", "2"], "--nnodes 2 needs --coordinator HOST:PORT"),
        (["--nnodes", "3:2"], "the first number must not be above the second"),
        (["--node-rank", "1"], "--node-rank 1 needs --nnodes and --coordinator"),
        (["--nnodes", "2", "--coordinator", "10.0.0.1"], "give HOST:PORT, for example 10.0.0.1:29500"),
        (["--nnodes", "2", "--coordinator", "127.0.0.1:2000"], "several nodes need a common secret"),
        (["--workers", "0"], "--workers 0: give a whole number of at least 1"),
        (["--start-method", "fork"], "--start-method fork: give forkserver or spawn"),
        (["--metrics-port", "x"], "--metrics-port x: give a whole number of at least 0"),
        (["--metrics-port", "65536"], "--metrics-port 65536: a port is at most 65535; 0 for none"),
        (["--slots", "0"], "slots = 0 (from --slots) must be an integer from 1 to 65536 slots"),
        (["--record", "/nonexistent/r.jsonl"], "there is no directory /nonexistent"),
        (["--record", "."], "is a directory; name a file"),
        (["--run-id", "a/b"], "becomes part of a file name"),
        (["--tee", "1"], "stdout and stderr of a worker share one log; use 3 for both"),
        (["--tee", "x"], "give 0, 3, or INDEX:0 and INDEX:3"),
        (["-m", "--no-python"], "-m and --no-python exclude each other"),
        (["--config", "missing.toml"], "missing.toml: No such file"),
    ],
)
def test_a_wrong_flag_is_one_clear_line(parse, flags, words):
    assert words in refused(parse, *flags)


def test_a_port_for_metrics_that_is_in_use_stops_everything_before_it_starts(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = str(sock.getsockname()[1])
        assert main(["run", "--metrics-port", port, "--run-dir", "run", "train.py"]) == 2
    assert f"cannot listen on 127.0.0.1:{port} (Address already in use)" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_metrics_are_off_and_local_unless_asked_for(parse):
    assert (parse().metrics_port, parse().metrics_addr) == (0, "127.0.0.1")
    job = parse("--metrics-port", "9400", "--metrics-addr", "0.0.0.0")
    assert (job.metrics_port, job.metrics_addr) == (9400, "0.0.0.0")


def test_a_script_that_is_not_there_is_said_before_anything_starts(parse, tmp_path):
    assert refused(parse, script=("missing.py",)) == "script missing.py does not exist"
    assert "is a directory" in refused(parse, script=(str(tmp_path),))
    assert "was not found" in refused(parse, "--no-python", script=("no-such-program",))


def test_what_the_terminal_shows():
    assert shown_workers(None, None, None, 3) is None
    assert shown_workers("3", None, None, 3) == {0, 1, 2}
    assert shown_workers("0:3,2:3", None, None, 3) == {0, 2}
    assert shown_workers(None, "3", None, 3) == frozenset()
    assert shown_workers(None, "1:3", None, 3) == {0, 2}
    assert shown_workers(None, None, "1,2", 3) == {1, 2}


def test_the_number_of_workers_can_be_the_number_of_processors(parse, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
    assert parse("--nproc-per-node", "cpu").workers == 3


@pytest.mark.parametrize("flags", [["--nope"], ["--spares"], []])
def test_the_parsers_errors_are_one_line_and_status_2(flags, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["run", *flags])
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["run", "missing.py"], ["run", "--rdzv-backend", "c10d", "x.py"]])
def test_a_wrong_job_exits_with_2_and_one_line(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_verbs_are_listed_and_a_wrong_one_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"  {verb} " in shown for verb in VERBS)
    with pytest.raises(SystemExit) as caught:
        main(["fly"])
    assert caught.value.code == 2
    assert "'fly' is no verb" in capsys.readouterr().err


def test_each_verb_has_its_module(capsys):
    for verb in VERBS:
        with pytest.raises(SystemExit) as caught:
            main([verb, "--help"])
        assert caught.value.code == 0
        assert f"hpresil {verb}" in capsys.readouterr().out


def test_the_version_is_printed():
    out = subprocess.check_output([sys.executable, "-m", "hpresil.cli.main", "--version"], text=True)
    assert out.strip().count(".") == 2


def test_flags_are_not_abbreviated():
    parser = run.add_parser(argparse.ArgumentParser().add_subparsers())
    with pytest.raises(SystemExit):
        parser.parse_args(["--spare", "1", "train.py"])
