"""The example trains without a launcher, as the README says."""

import os
import subprocess
import sys
from pathlib import Path

import hpresil
from hpresil.data.build import build

ROOT = Path(__file__).parents[2]
TINY = {"dim": 32, "hidden": 48, "layers": 1, "heads": 2, "seq-len": 16, "stop-at": 3}


def test_the_example_runs_alone(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("to be or not to be, that is the question\n" * 50)
    build(tmp_path / "corpus.tokens", [tmp_path / "text"])
    script = ROOT / "examples" / "train_llama.py"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HPRESIL_")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(hpresil.__file__).parents[1])}
    flags = [f"--{name}={value}" for name, value in TINY.items()]
    done = subprocess.run(
        [sys.executable, script, "--data", tmp_path / "corpus.tokens", *flags],
        cwd=tmp_path,
        env=environment,
        timeout=100,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
