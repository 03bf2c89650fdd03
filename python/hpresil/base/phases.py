"""The phases a worker writes into its liveness page; the code is the index."""

PHASES = (
    "outside",  # not between the entry of a step block and its end
    "computing",  # user code of a slot runs
    "waiting",  # waits inside hpresil for the other members; never hung by itself
    "applying",  # optimizers run
    "tail",  # user code between `apply` and the end of the block
    "paused",  # inside pause_watchdog
    "standby",  # a spare before its view
    "restoring",  # a newcomer copies state
    "done",  # left the loop
)
CODE = {name: code for code, name in enumerate(PHASES)}
