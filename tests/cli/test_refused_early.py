"""What cannot be done is refused before anything is written."""

import dataclasses
import os
import subprocess
import sys

import pytest

from tests.configs import small_config
from tests.conftest import HALVES, ROOT, npz
from tests.conftest import SMALL_LABELS as LABELS
from vae_common.config import LossConfig, NetworkConfig, TrainingConfig
from vae_common.data import datasets, memory
from vae_common.errors import InputError
from vae_common.runs import trainer

EARLY = [
    ("train", "--classes", 3),
    ("train", "--classes", 30),
    ("train", "--dataset", "untested.npz", "--classes", 3, "--batch-size", 4),
    ("train", "--dataset", "further.npz", "--classes", 3, "--batch-size", 4),
    ("train", "--hidden", 2_000_000_000),
    ("train", "--hidden", 200_000, 200_000),
    ("train", "--model", "two_layer_vae", "--top-hidden", 2_000_000_000),
    ("train", "--latent-dim", 2_000_000_000),
    ("train", "--samples", 1_000_000_000),
    ("train", "--batch-size", 1_500, "--samples", 100_000),
    ("train", "--batch-size", 1_501),
    ("train", "--validation-size", 1_400),
    ("train", "--device", "cuda"),
    ("train", "--device", "mps", "--framework", "torch"),
    ("train", "--precision", "tf32"),
    ("train", "--execution", "graph", "--framework", "torch"),
    ("train", "--seed", -1),
    ("train", "--seed", 2**63),
    ("train", "--checkpoint-every", 0),
    ("train", "--model", "kl_autoencoder", "--block-channels", 8, 8, 8, 8),
    ("compare", "--classes", 3),
    ("compare", "--seeds", 0, 2**63 - 1, "--check", "independent"),
    ("compare", "--hidden", 2_000_000_000),
    ("compare", "--steps", 10**6),
    ("compare", "--grid-side", 10**6),
    ("compare", "--check", "lockstep", "--lockstep-steps", 10**8),
    ("compare", "--device", "cuda"),
    ("sweep", "--vary", "training.batch_size=100,5000"),
    ("sweep", "--vary", "network.hidden=[8],[2000000000]"),
    ("sweep", "--vary", "training.device=cpu,cuda"),
    ("sweep", "--vary", "training.precision=float32,tf32"),
    ("sweep", "--vary", "model=vae,gan"),
    ("sweep", "--seeds", 0, 0),
    ("sweep", "--seeds", -1),
    ("sweep", "--classes", 3),
    ("tutorial", "--dataset", "digits", "--seed", -1),
    ("tutorial", "--dataset", "digits", "--steps", 10**6),
    ("tutorial", "--dataset", "digits", "--device", "cuda"),
    ("benchmark", "--rounds", 0),
    ("benchmark", "--processes", 0),
    ("benchmark", "--processes", 10**9),
    ("benchmark", "--batch-size", 0),
    ("benchmark", "--frameworks"),
    ("benchmark", "--baseline", "untested.npz"),
    ("benchmark", "--baseline", "nowhere.json"),
    ("benchmark", "--baseline", "."),
    ("benchmark", "--device", "cuda"),
    ("benchmark", "--frameworks", "torch", "--executions", "graph"),
    ("benchmark", "--frameworks", "torch", "--hidden", 2_000_000_000),
    ("benchmark", "--precision", "tf32"),
    ("paper_table", "--samples", 0),
    ("paper_table", "--samples", 10**9),
    ("paper_table", "--stages", 8),
    ("paper_table", "--seeds", -1),
    ("compile_for_tpu", "--output", "untested.npz"),
    ("compile_for_tpu", "--libtpu", "nowhere"),
]


@pytest.mark.parametrize("words", EARLY, ids=lambda words: " ".join(map(str, words)))
def test_refused_before_anything_is_written(refused, tmp_path, words):
    npz(tmp_path, "untested.npz", test_labels=None)
    npz(tmp_path, "further.npz", test_labels=LABELS[:6] + 3)
    name, *flags = words
    refused(name, *flags, cwd=tmp_path)


@pytest.mark.parametrize(("flag", "value"), [("--steps", 10**6), ("--grid-side", 10**5), ("--interpolate", (0, 10**9))])
def test_a_figure_that_would_never_end(refused, small, tmp_path, flag, value):
    (tmp_path / "r").mkdir()
    trainer.train(HALVES["torch"], small_config(), datasets.load("digits"), tmp_path / "r")
    values = value if isinstance(value, tuple) else (value,)
    refused("plot", "--run", "r", flag, *values, cwd=tmp_path)
    refused("evaluate", "--run", "r", "--samples", 10**9, cwd=tmp_path, said="samples: received")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"network": NetworkConfig(hidden=(100_000,))}, "a smaller network"),
        ({"loss": LossConfig(samples=100_000)}, "fewer samples"),
        ({"network": NetworkConfig(hidden=(4,)), "training": TrainingConfig(batch_size=10**6)}, "batch_size"),
    ],
)
def test_memory_is_estimated_by_part(half, changes, said):
    config = dataclasses.replace(small_config(), **changes)
    with pytest.raises(InputError, match=said) as error:
        memory.require(config, half.model_shapes(config), 10**6, there=10**8)
    assert "memory: this training takes at least" in str(error.value)
    memory.require(config, half.model_shapes(config), 10**6, there=10**15)


def test_what_is_estimated_is_not_more_than_what_is_taken(half, small):
    """A lower bound: weights, moments, gradients and copies of a wide network, against what its arrays hold."""
    config = small_config(network=NetworkConfig(hidden=(300,), latent_dim=2))
    needs = memory.required(config, half.model_shapes(config), len(small.train))
    arrays = half.state_to_arrays(half.create_state(config))
    held = sum(array.nbytes for array in arrays.values())
    assert held * 2 < needs.weights < held * 2.5
    draws = half.epoch_draws(config, 0, len(small.train))
    assert needs.draws == 2 * half.to_numpy(draws.noise).nbytes
    assert memory.available() > 10**8


def test_a_limit_on_memory_is_seen(tmp_path):
    """As clusters set it; the process is not killed by it."""
    code = "from vae_common.data import memory; print(memory.available())"
    shell = f"ulimit -v 4000000; {sys.executable} -c '{code}'"
    result = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, cwd=ROOT, check=True)
    assert 10**9 < int(result.stdout) < 4_000_000 * 1024


def test_a_pipe_is_not_waited_for(refused, tmp_path):
    for name in ("p.npz", "train-images-idx3-ubyte"):
        os.mkfifo(tmp_path / name)
    refused("train", "--dataset", "p.npz", cwd=tmp_path, said="no regular file")
    with pytest.raises(InputError, match="no regular file"):
        datasets.load(tmp_path)
    (tmp_path / "r").mkdir()
    for name in ("checkpoint.safetensors", "config.json", "summary.json"):
        os.mkfifo(tmp_path / "r" / name)
    refused("train", "--resume", "r", cwd=tmp_path, said="no regular file")
    refused("compare", "--runs", "r", cwd=tmp_path, said="no regular file")
    refused("benchmark", "--baseline", "r/config.json", cwd=tmp_path, said="no regular file")
