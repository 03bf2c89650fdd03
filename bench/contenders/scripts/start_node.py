"""Starts the ranks of one node, from RANK on, and waits for them: python start_node.py RANKS SCRIPT.

For systems that have no launcher of their own.
"""

import os
import subprocess
import sys

first, ranks = int(os.environ["RANK"]), int(sys.argv[1])
started = [
    subprocess.Popen([sys.executable, sys.argv[2]], env={**os.environ, "RANK": str(first + rank)})
    for rank in range(ranks)
]
# Whichever ends first: who watches a rank waits until it is gone.
ended = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in started]
sys.exit(max(map(abs, ended)))
