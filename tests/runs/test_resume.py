"""A run goes on where it stopped: bit for bit in the same half, to rounding in the other."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from tests.configs import small_config
from tests.conftest import HALVES, ROOT, script, term_rows
from vae_common import files
from vae_common.config import DataConfig
from vae_common.data import datasets
from vae_common.data.splits import Split
from vae_common.errors import InputError
from vae_common.runs import checkpoints, trainer
from vae_common.runs.folder import TRAINED_ELSEWHERE, Run


def with_epochs(config, epochs):
    return replace(config, training=replace(config.training, epochs=epochs))


def train(half, config, small, folder, resume=None):
    folder.mkdir(exist_ok=True)
    trainer.train(half, config, small, folder, resume=resume)
    return checkpoints.read(folder / "checkpoint.safetensors")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("randomness", ["shared", "native"])
def test_same_half_is_bit_exact(half, small, tmp_path, dtype, randomness):
    """Weights, moments, step, order, noise, binarization, history."""
    config = small_config(dtype=dtype, data=DataConfig(binarization="dynamic"))
    config = replace(config, training=replace(config.training, randomness=randomness))
    whole = train(half, with_epochs(config, 4), small, tmp_path / "whole")
    train(half, with_epochs(config, 2), small, tmp_path / "parts")
    point = Run(tmp_path / "parts").resume_point()
    assert point.epoch == 2
    parts = train(half, with_epochs(config, 4), small, tmp_path / "parts", resume=point)
    assert parts.arrays.keys() == whole.arrays.keys()
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(parts.arrays[name], array)
    times = {"seconds", "waited_seconds", "images_per_second"}
    timeless = [[{k: v for k, v in r.items() if k not in times} for r in c.history]
                for c in (parts, whole)]  # fmt: skip
    assert timeless[0] == timeless[1]
    logged = (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in logged] == [1, 2, 3, 4]


def steps(half, config, small, epochs, arrays=None):
    """Every step's terms over these epochs, (3, steps), and the arrays at their end."""
    state = half.create_state(config) if arrays is None else half.state_from_arrays(config, arrays)
    images, terms = half.place_images(small.train.images, config), []
    for epoch in epochs:
        state, now = half.train_epoch(state, images, half.epoch_draws(config, epoch, len(images)))
        terms.append(term_rows(now))
    return np.concatenate(terms, axis=1), half.state_to_arrays(state)


def apart(a, b):
    """The largest relative difference of any term at each step."""
    assert a.shape == b.shape != (3, 0)
    return (np.abs(a - b) / np.abs(b)).max(0)


def assert_weights_close(a, b, rates):
    assert a.keys() == b.keys()
    for name in a:
        assert name.startswith("adam.") or np.abs(a[name] - b[name]).max() <= rates * 1e-3


@pytest.mark.parametrize("first", HALVES)
def test_the_other_half_goes_on(small, first):
    """C3, 40 float64 steps: every loss within 1e-12, parameters within 1e-8 learning rates."""
    (other,) = (name for name in HALVES if name != first)
    _, start = steps(HALVES[first], small_config(), small, [0])
    (a, a_end), (b, b_end) = (steps(HALVES[n], small_config(), small, range(1, 5), start) for n in (first, other))
    assert apart(a, b).shape == (40,)
    assert apart(a, b).max() <= 1e-12
    assert a_end["adam.step"] == b_end["adam.step"] == 50
    assert_weights_close(a_end, b_end, 1e-8)


@pytest.mark.parametrize("first", HALVES)
def test_float32_in_the_other_half(first):
    """C3: the first two losses within 2e-6, ten steps within 1e-4: as JAX compiles for users, so in another process."""
    command = f"from tests.runs import test_resume; print(test_resume.float32_apart({first!r}))"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, cwd=ROOT, check=True)
    found = json.loads(done.stdout)
    assert len(found) == 10
    assert max(found[:2]) <= 2e-6
    assert max(found) <= 1e-4


def float32_apart(first):
    """How far ten float32 steps of both halves are apart, from a state that one of them trained."""
    (other,) = (name for name in HALVES if name != first)
    digits, config = datasets.load("digits"), small_config(dtype="float32")
    small = replace(digits, train=Split(digits.train.images[:200], digits.train.labels[:200]))
    _, start = steps(HALVES[first], config, small, [0])
    a, b = (steps(HALVES[name], config, small, [1], start)[0] for name in (first, other))
    return [float(value) for value in apart(a, b)]


def test_changing_half_every_ten_steps(small):
    """C4: as C3, with the baton going to and fro."""
    whole, end = steps(HALVES["torch"], small_config(), small, range(6))
    arrays, parts = None, []
    for epoch in range(6):
        terms, arrays = steps(HALVES[("jax", "torch")[epoch % 2]], small_config(), small, [epoch], arrays)
        parts.append(terms)
    assert apart(np.concatenate(parts, axis=1), whole).max() <= 1e-12
    assert_weights_close(arrays, end, 1e-8)


def test_a_run_remembers_who_trained_which_epoch(small, tmp_path):
    train(HALVES["jax"], with_epochs(small_config(), 1), small, tmp_path / "r")
    point = Run(tmp_path / "r").resume_point()
    parts = train(HALVES["torch"], with_epochs(small_config(), 2), small, tmp_path / "r", resume=point)
    assert [record["framework"] for record in parts.history] == ["jax", "torch"]


def test_damaged_before_the_first_checkpoint(tmp_path):
    for text in ("{", "[]", "{}", '{"config": {"modl": "vae"}, "framework": "jax"}'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError, match=r"damaged|unknown keys"):
            Run(tmp_path).resume_point()


def test_a_resumed_run_is_unfinished_until_it_finishes(half, small, tmp_path, monkeypatch):
    train(half, with_epochs(small_config(), 1), small, tmp_path)
    assert (tmp_path / "summary.json").exists()

    def stopped(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(half, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(half, with_epochs(small_config(), 2), small, tmp_path, resume=Run(tmp_path).resume_point())
    assert not Run(tmp_path).is_finished
    with pytest.raises(InputError, match="did not finish: its summary is of 1 epochs, it has 1 and goes to 2"):
        Run(tmp_path).summary()
    assert Run(tmp_path).resume_point().config.training.epochs == 2  # the extension is not forgotten
    assert json.loads((tmp_path / "summary.json").read_text())["epochs"] == 1  # nothing old goes before it is replaced


def test_two_trainings_never_share_a_folder(half, small, tmp_path):
    with (
        files.alone_in(tmp_path, TRAINED_ELSEWHERE),
        pytest.raises(InputError, match="being trained by another process"),
    ):
        trainer.train(half, small_config(), small, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path):
    quick = ("--hidden", "16", "--precision", "float64")
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
