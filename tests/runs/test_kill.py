"""kill -9 at any moment of a run leaves a checkpoint that resumes to the same final weights."""

import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import HALVES, ROOT
from vae_common.runs import checkpoints

KILLED_RUNS = """
import importlib, os, pathlib, signal, sys, time
from dataclasses import replace
import numpy as np
from tests.configs import small_config
from vae_common.data import datasets
from vae_common.data.splits import Split
from vae_common.runs import trainer
from vae_common.runs.folder import Run

half, root = importlib.import_module(sys.argv[1] + "_vae"), pathlib.Path(sys.argv[2])
if sys.argv[1] == "torch":
    import torch
    torch.set_num_threads(1)  # a fork of a process with a thread pool hangs; JAX has not started its own yet
config = small_config()
config = replace(config, training=replace(config.training, epochs=25))
digits = datasets.load("digits")
small = replace(digits, train=Split(digits.train.images[:200], digits.train.labels[:200]))

def start(folder):
    process = os.fork()
    if process:
        return process
    folder.mkdir(exist_ok=True)
    point = Run(folder).resume_point() if (folder / "config.json").exists() else None
    trainer.train(half, config, small, folder, resume=point)
    os._exit(0)

def finish(folder):
    assert os.waitpid(start(folder), 0)[1] == 0

def epochs(folder):
    try:
        return len((folder / "metrics.jsonl").read_text().splitlines())
    except FileNotFoundError:
        return 0

finish(root / "whole")
rng = np.random.default_rng(0)
reached = []
for kill in range(10):
    folder, turn = root / f"killed{kill // 5}", kill % 5
    process = start(folder)
    goal = turn * 5 + rng.integers(0, 5) if turn else 0  # the first of five: even before the run has begun
    while epochs(folder) < goal and os.waitpid(process, os.WNOHANG) == (0, 0):
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.02 if turn else 0.5))
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    reached.append(Run(folder).resume_point().epoch if (folder / "config.json").exists() else 0)
for run in range(2):
    finish(root / f"killed{run}")
print(*reached)
"""


@pytest.mark.parametrize("framework", HALVES)
def test_kill_at_any_moment(tmp_path, framework):
    """Ten random moments, each run resumed by the next, end in the weights of a run that never stopped."""
    command = [sys.executable, "-W", "ignore", "-c", KILLED_RUNS, framework, str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    reached = [int(epoch) for epoch in result.stdout.split()]
    assert len({epoch for epoch in reached if epoch < 25}) >= 3, reached
    whole = checkpoints.read(tmp_path / "whole" / "checkpoint.safetensors")
    for i in range(2):
        resumed = checkpoints.read(tmp_path / f"killed{i}" / "checkpoint.safetensors")
        assert resumed.arrays.keys() == whole.arrays.keys()
        for name, array in whole.arrays.items():
            np.testing.assert_array_equal(resumed.arrays[name], array)
        names = {path.name for path in (tmp_path / f"killed{i}").iterdir()}  # no half-written file either
        assert names == {path.name for path in (tmp_path / "whole").iterdir()}
