"""A run goes on where it stopped: bit for bit in the same half, to rounding in the other."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from tests.conftest import HALVES, ROOT, small_config
from tests.test_scripts import script
from vae_common import checkpoints, runs
from vae_common.configs import DataConfig, InputError
from vae_common.resume import resume_point


def with_epochs(config, epochs):
    return replace(config, training=replace(config.training, epochs=epochs))


def train(half, config, small, folder, resume=None):
    folder.mkdir(exist_ok=True)
    runs.train(half, config, small, folder, resume=resume)
    return checkpoints.read(folder / "checkpoint.safetensors")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("randomness", ["shared", "native"])
def test_same_half_is_bit_exact(half, small, tmp_path, dtype, randomness):
    """Weights, moments, step, order, noise, binarization, history."""
    config = small_config(dtype=dtype, data=DataConfig(binarization="dynamic"))
    config = replace(config, training=replace(config.training, randomness=randomness))
    whole = train(half, with_epochs(config, 4), small, tmp_path / "whole")
    train(half, with_epochs(config, 2), small, tmp_path / "parts")
    point = resume_point(tmp_path / "parts")
    assert point.epoch == 2
    parts = train(half, with_epochs(config, 4), small, tmp_path / "parts", resume=point)
    assert parts.arrays.keys() == whole.arrays.keys()
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(parts.arrays[name], array)
    timeless = [[{k: v for k, v in r.items() if k not in {"seconds", "images_per_second"}} for r in c.history]
                for c in (parts, whole)]  # fmt: skip
    assert timeless[0] == timeless[1]
    logged = (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in logged] == [1, 2, 3, 4]


@pytest.mark.parametrize("first", HALVES)
def test_the_other_half_goes_on(small, tmp_path, first):
    """40 float64 steps: losses within 1e-12, parameters within 1e-8 learning rates."""
    (other,) = (name for name in HALVES if name != first)
    config = small_config()
    whole = train(HALVES[first], with_epochs(config, 5), small, tmp_path / "whole")
    train(HALVES[first], with_epochs(config, 1), small, tmp_path / "parts")
    point = resume_point(tmp_path / "parts")
    parts = train(HALVES[other], with_epochs(config, 5), small, tmp_path / "parts", resume=point)
    assert parts.arrays["adam.step"] == whole.arrays["adam.step"] == 50
    for a, b in zip(parts.history, whole.history):
        assert a["train"]["total_nats"] == pytest.approx(b["train"]["total_nats"], rel=1e-12)
        assert a["test"]["kl_nats"] == pytest.approx(b["test"]["kl_nats"], rel=1e-10)
    for name in whole.weights:
        assert np.abs(parts.arrays[name] - whole.arrays[name]).max() <= 1e-8 * 1e-3
    assert [record["framework"] for record in parts.history] == [first, *[other] * 4]


def test_float32_in_the_other_half(small, tmp_path):
    config = small_config(dtype="float32")
    whole = train(HALVES["jax"], with_epochs(config, 2), small, tmp_path / "whole")
    train(HALVES["jax"], with_epochs(config, 1), small, tmp_path / "parts")
    point = resume_point(tmp_path / "parts")
    parts = train(HALVES["torch"], with_epochs(config, 2), small, tmp_path / "parts", resume=point)
    for a, b in zip(parts.history, whole.history):
        assert a["train"]["total_nats"] == pytest.approx(b["train"]["total_nats"], rel=1e-4)


def test_changing_half_every_ten_steps(small, tmp_path):
    config = small_config()
    whole = train(HALVES["torch"], with_epochs(config, 6), small, tmp_path / "whole")
    point = None
    for epoch in range(1, 7):
        half = HALVES[("jax", "torch")[epoch % 2]]
        parts = train(half, with_epochs(config, epoch), small, tmp_path / "parts", resume=point)
        point = resume_point(tmp_path / "parts")
    for name in whole.weights:
        assert np.abs(parts.arrays[name] - whole.arrays[name]).max() <= 1e-8 * 1e-3


def test_a_resumed_run_is_unfinished_until_it_finishes(half, small, tmp_path, monkeypatch):
    train(half, with_epochs(small_config(), 1), small, tmp_path)
    assert (tmp_path / "summary.json").exists()

    def stopped(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(half, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(half, with_epochs(small_config(), 2), small, tmp_path, resume=resume_point(tmp_path))
    assert not (tmp_path / "summary.json").exists()
    assert not (tmp_path / "weights.safetensors").exists()


def test_two_trainings_never_share_a_folder(half, small, tmp_path):
    with runs.alone_in(tmp_path), pytest.raises(InputError, match="being trained by another process"):
        runs.train(half, small_config(), small, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path):
    quick = ("--hidden", "16", "--dtype", "float64")
    script("train", "--framework", "jax", "--output", "a", "--epochs", 3, *quick, cwd=tmp_path)
    script("train", "--framework", "jax", "--output", "b", "--epochs", 1, *quick, cwd=tmp_path)
    script("train", "--resume", "b", "--framework", "torch", "--epochs", 2, cwd=tmp_path)
    result = script("train", "--resume", "b", "--framework", "jax", "--epochs", 3, cwd=tmp_path)
    whole = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert result["test"]["total_nats"] == pytest.approx(whole["test"]["total_nats"], rel=1e-12)
    for flags, said in (
        (["--resume", "b", "--latent-dim", "3"], "received --latent-dim, expected at most --framework"),
        (["--resume", "b", "--epochs", "1"], "the run has finished 3"),
        (["--resume", "nowhere"], "nowhere does not exist"),
        (["--resume", "b", "--checkpoint-every", "0"], "checkpoint_every: received 0"),
    ):
        assert said in script("train", *flags, cwd=tmp_path, status=2)


KILLED_RUNS = """
import os, pathlib, signal, sys, time
from dataclasses import replace
import numpy as np, torch
import torch_vae
from tests.conftest import small_config
from vae_common import datasets, runs
from vae_common.resume import resume_point

torch.set_num_threads(1)  # each run is a fork of this process
root = pathlib.Path(sys.argv[1])
config = small_config()
config = replace(config, training=replace(config.training, epochs=25))
digits = datasets.load("digits")
small = replace(digits, train=datasets.Split(digits.train.images[:200], digits.train.labels[:200]))

def start(folder):
    process = os.fork()
    if process:
        return process
    folder.mkdir(exist_ok=True)
    point = resume_point(folder) if (folder / "config.json").exists() else None
    runs.train(torch_vae, config, small, folder, resume=point)
    os._exit(0)

def finish(folder):
    assert os.waitpid(start(folder), 0)[1] == 0

began = time.perf_counter()
finish(root / "whole")
longest = (time.perf_counter() - began) / 3  # so that five kills fall into one run
draw = np.random.default_rng(0)
for kill in range(20):
    process = start(root / f"killed{kill // 5}")
    time.sleep(draw.uniform(0, longest))
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
for run in range(4):
    finish(root / f"killed{run}")
"""


def test_kill_at_any_moment(tmp_path):
    """kill -9 at 20 random moments of a run, each resumed by the next, ends in the same weights."""
    subprocess.run([sys.executable, "-c", KILLED_RUNS, str(tmp_path)], cwd=ROOT, check=True)
    whole = checkpoints.read(tmp_path / "whole" / "checkpoint.safetensors")
    for i in range(4):
        resumed = checkpoints.read(tmp_path / f"killed{i}" / "checkpoint.safetensors")
        for name, array in whole.arrays.items():
            np.testing.assert_array_equal(resumed.arrays[name], array)
        names = {path.name for path in (tmp_path / f"killed{i}").iterdir() if not path.name.startswith(".")}
        assert names == {path.name for path in (tmp_path / "whole").iterdir()}
