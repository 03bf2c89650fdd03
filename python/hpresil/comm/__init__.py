"""Process groups that can be interrupted, and the sum of all gradients.

From the outside in:

* `reduction` sums gradients in the canonical order, `native_reduction` with the backend's own all-reduce,
* `exchange` is how gradients travel, `schedule` who sends what to whom, `homes` who can read whose memory,
  `segments` that memory, `staging` what arrives, `folding` and `arithmetic` the additions,
* `small_messages` carries votes, statistics and whatever else is small,
* `group` is one generation's group, `rendezvous`, `store` and `sockets` how it is built, `waiting` and
  `parking` how it is given up.
"""
