"""What torch's watchdog is told, and what a user's own settings take away."""

from hpresil.comm.watchdog import VARIABLES, contradictions, worker_environment


def test_every_variable_has_a_reason_and_none_is_there_twice() -> None:
    assert len({variable.name for variable in VARIABLES}) == len(VARIABLES)
    assert all(variable.name.startswith("TORCH_NCCL_") and variable.reason for variable in VARIABLES)


def test_what_a_user_has_set_stays_and_what_is_missing_is_added() -> None:
    assert worker_environment({}) == {variable.name: variable.value for variable in VARIABLES}
    added = worker_environment({"TORCH_NCCL_BLOCKING_WAIT": "1", "HOME": "x"})
    assert "TORCH_NCCL_BLOCKING_WAIT" not in added
    assert added["TORCH_NCCL_ASYNC_ERROR_HANDLING"] == "0"
    assert len(added) == len(VARIABLES) - 1


def test_a_setting_that_takes_recovery_away_is_said_with_the_reason() -> None:
    assert contradictions(worker_environment({})) == []
    (said,) = contradictions({"TORCH_NCCL_ASYNC_ERROR_HANDLING": "1"})
    assert said.startswith("TORCH_NCCL_ASYNC_ERROR_HANDLING=1 is set")
    assert "ends the process" in said
