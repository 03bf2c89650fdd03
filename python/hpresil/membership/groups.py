"""Process groups that fail although nobody is lost.

A broken connection, or a construction that did not end in time: the workers are fine, and a new
generation with the same members gives them a new group. First the news of a loss gets a moment to
arrive, because a death usually breaks the group before the agent has reported it. Groups that fail
again and again without a committed step in between are the environment's fault: the job stops.
"""

from __future__ import annotations

from hpresil.membership import ending, view
from hpresil.membership.messages import GroupLost
from hpresil.membership.state import Ending
from hpresil.membership.turn import Turn

MAX_LOSSES = 5


def lost(turn: Turn, worker: int, message: GroupLost) -> None:
    """Note that the group of the current generation failed on a member."""
    state = turn.state
    current = message.generation == state.generation and worker in state.members
    if current and state.phase in ("regrouping", "training") and not state.group_lost:
        why = f"the group of generation {state.generation} failed on {turn.name(worker)}: {message.error}"
        turn.set(group_lost=why, group_lost_at=turn.now)


def rebuild(turn: Turn) -> None:
    """Install a new generation if a group failed and the news of a loss did not come."""
    state = turn.state
    if not state.group_lost or turn.now - state.group_lost_at < state.settings.group_grace_s:
        return
    turn.set(group_losses=state.group_losses + 1)
    if turn.state.group_losses <= MAX_LOSSES:
        view.again(turn, state.group_lost)
        return
    reason = f"{state.group_lost}; {turn.state.group_losses} groups failed since the last committed step"
    ending.stop(turn, Ending(status=1, reason=reason))
