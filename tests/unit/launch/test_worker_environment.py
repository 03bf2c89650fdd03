from pathlib import Path

from hpresil.comm import watchdog
from hpresil.launch.job import Job
from hpresil.launch.worker_environment import Place, Premises, command, environment, shared_environment

PREMISES = Premises(
    node="here",
    socket=Path("/s/agent"),
    run_dir=Path("/r"),
    log_dir=Path("/r/logs"),
    arena_fds=(7, 8),
    resume=None,
)


def variables(inherited, resume=None, **more):
    shared = shared_environment(job(**more), PREMISES, inherited)
    return environment(shared, Place(worker=5, index=2, restarts=1, page_fd=9, trace_fd=6, resume=resume))


def job(**more):
    command = ("train.py", "--lr", "1")
    return Job(command=command, workers=3, run_id="abc", role="trainer", master_port=29500, **more)


def test_a_worker_gets_torchruns_variables_and_ours():
    env = variables({"PATH": "/bin"}, settings={"HPRESIL_SLOTS": "16"})
    expected = {
        "PATH": "/bin",
        "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
        "RANK": "2",
        "LOCAL_RANK": "2",
        "WORLD_SIZE": "3",
        "LOCAL_WORLD_SIZE": "3",
        "GROUP_RANK": "0",
        "GROUP_WORLD_SIZE": "1",
        "ROLE_RANK": "2",
        "ROLE_WORLD_SIZE": "3",
        "ROLE_NAME": "trainer",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
        "TORCHELASTIC_RUN_ID": "abc",
        "TORCHELASTIC_RESTART_COUNT": "1",
        "TORCHELASTIC_MAX_RESTARTS": "16",
        "HPRESIL_SLOTS": "16",
        "HPRESIL_NODE": "here",
        "HPRESIL_SOCKET": "/s/agent",
        "HPRESIL_PAGE_FD": "9",
        "HPRESIL_TRACE_FD": "6",
        "HPRESIL_ARENA_FDS": "7,8",
        "HPRESIL_WORKER": "5",
        "HPRESIL_RUN_DIR": "/r",
        "HPRESIL_LOG_DIR": "/r/logs",
    }
    expected |= {variable.name: variable.value for variable in watchdog.VARIABLES}
    assert {name: value for name, value in env.items() if name != "HPRESIL_AGENT_PID"} == expected


def test_what_the_user_set_stays():
    env = variables({"OMP_NUM_THREADS": "4", "PYTHONHASHSEED": "7", "TORCH_NCCL_BLOCKING_WAIT": "1"})
    assert env["TORCH_NCCL_BLOCKING_WAIT"] == "1"
    assert (env["OMP_NUM_THREADS"], env["PYTHONHASHSEED"]) == ("4", "7")


def test_a_resume_is_named_and_an_inherited_one_is_not_believed():
    assert "HPRESIL_RESUME" not in variables({"HPRESIL_RESUME": "/old"})
    assert variables({}, resume=Path("/c/step-1"))["HPRESIL_RESUME"] == "/c/step-1"


def test_the_command_is_the_interpreter_with_the_shim():
    words = command(job(kind="module"))
    assert words[1:3] == ["-u", "-c"]
    assert words[4:] == ["module", "train.py", "--lr", "1"]
