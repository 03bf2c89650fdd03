"""While the job trains: who stands by, when the group may change, when everybody is done."""

from __future__ import annotations

from hpresil.membership import handover, view
from hpresil.membership.messages import StandBy
from hpresil.membership.turn import Turn


def settle(turn: Turn) -> None:
    """Do what the new state calls for."""
    if turn.state.phase == "training" and not turn.state.restoring:
        _settle_training(turn)
    if turn.state.trained and turn.state.phase in ("regrouping", "training", "waiting"):
        _stand_by(turn)


def _settle_training(turn: Turn) -> None:
    """Note that all members hold the state, then end or change the group if it is time."""
    if not turn.state.trained:
        turn.set(trained=True)
    if turn.state.restore_failures or turn.state.avoid:
        turn.set(restore_failures=0, avoid=())
    if not view.all_finished(turn):
        handover.settle(turn)


def _stand_by(turn: Turn) -> None:
    """Have those in reserve make a dry step: the first state is safe, so they may spoil theirs."""
    for worker in turn.state.workers.values():
        if worker.phase == "ready":
            turn.update(worker.id, phase="standby", since=turn.now)
            turn.deliver(worker.id, StandBy())
