"""Process groups that can be interrupted, and the sum of all gradients.

From the outside in:

* `reduction` sums gradients in the canonical order, `native_reduction` with the backend's own all-reduce,
* `exchange` is how gradients travel, `schedule` who sends what to whom, `homes` who can read whose memory,
  `segments` that memory, `staging` what arrives, `folding` and `arithmetic` the additions,
* `small_messages` carries votes, statistics and whatever else is small,
* `group` is one generation's group, `rendezvous`, `store` and `sockets` how it is built, `waiting` and
  `parking` how it is given up.

Many communicators at once, over NCCL or gloo ([why](docs/design/communicators.md)):

* `communicators` is the interface, `nccl_communicators` and `gloo_communicators` are the two kinds,
  `id_mint` makes NCCL's ids,
* `ladder`, `pool`, `warming` and `transfer_plan` decide (pure): what to do when members change, which
  communicators stand by, what to run first, and who sends which bytes to whom,
* `commit_gate` lets the device decide about the optimizer's step, `watchdog` is what torch's own has to be
  told.
"""
