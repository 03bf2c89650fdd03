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
sys.exit(max(abs(process.wait()) for process in started))
