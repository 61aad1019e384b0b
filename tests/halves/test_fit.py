"""`fit` and `trainer.train` add nothing to `train_epoch` and `evaluate` and leave nothing out.

What a run records is what the functions below it compute on the right images: the split, the
binarization, every image, the final weights.
"""

from dataclasses import replace

import numpy as np
import pytest

from tests.configs import small_config
from tests.conftest import HALVES
from vae_common.config import DataConfig, NetworkConfig, TrainingConfig
from vae_common.contracts import map_arrays
from vae_common.data import datasets
from vae_common.data.seen import binarize
from vae_common.data.splits import Dataset, Split
from vae_common.errors import InputError
from vae_common.runs import checkpoints, trainer

MODES = {
    "none": ("none", "none"),
    "threshold": ("threshold",) * 2,
    "static": ("static",) * 2,
    "dynamic": ("none", "static"),
}
"""Binarization -> what the training images get before they are placed, and what evaluated images get."""


@pytest.fixture(scope="module")
def labelled():
    """A validation and a test split of more than one inference batch; a pixel of each image is its label."""
    rng = np.random.default_rng(0)

    def split(count):
        images = rng.integers(0, 256, (count, 4, 3, 1), np.uint8)
        labels = rng.integers(0, 10, count)
        images[:, 0, 0, 0] = labels
        return Split(images, labels)

    names = tuple("0123456789")
    return Dataset("labelled", split(1300), split(1100), names, "made up").hold_out(1050)


def config_of(mode, **training):
    training = {"precision": "float64", "batch_size": 23, "epochs": 2, "learning_rate": 1e-2} | training
    return replace(
        small_config(data=DataConfig(binarization=mode, validation_size=1050), training=TrainingConfig(**training)),
        image_shape=(4, 3, 1),
        network=NetworkConfig(hidden=(6,), latent_dim=2),
    )


def means(terms):
    return {f"{name}_nats": pytest.approx(np.mean(values), rel=1e-13) for name, values in terms.named().items()}


@pytest.mark.parametrize("mode", MODES)
def test_a_run_is_its_epochs(half, labelled, tmp_path, mode):
    config, (train_mode, held_mode) = config_of(mode), MODES[mode]
    summary = trainer.train(half, config, labelled, tmp_path, checkpoint_every=10)
    saved = checkpoints.read(tmp_path / "checkpoint.safetensors")
    state = half.create_state(config)
    images = half.place_images(binarize(labelled.train.images, train_mode, "train"), config)
    validation = binarize(labelled.validation.images, held_mode, "validation")
    for epoch in range(2):
        state, terms = half.train_epoch(state, images, half.epoch_draws(config, epoch, 250))
        record = saved.history[epoch]
        assert record["train"] == means(map_arrays(half.to_numpy, terms))
        assert record["validation"] == means(half.evaluate(state.model, validation, config))
        assert "test" not in record
    test = binarize(labelled.test.images, held_mode, "test")
    assert summary["test"] == means(half.evaluate(state.model, test, config))
    assert summary["binarization"] == mode
    for name, array in half.state_to_arrays(state).items():
        np.testing.assert_array_equal(saved.arrays[name], array)
    weights = checkpoints.safetensors.numpy.load_file(tmp_path / "weights.safetensors")
    for name, array in half.to_arrays(state.model).items():
        np.testing.assert_array_equal(weights[name], array)


def test_train_epoch_in_float32_is_train_step_repeated(half, labelled):
    """Bit for bit in PyTorch; in JAX another compiled program may round differently."""
    config = config_of("dynamic", precision="float32")
    grey = labelled.train.images
    draws = half.epoch_draws(config, 0, len(grey))
    whole, terms = half.train_epoch(half.create_state(config), half.place_images(grey, config), draws)
    state, order, thresholds = half.create_state(config), half.to_numpy(draws.order), half.to_numpy(draws.thresholds)
    for step in range(len(order)):
        images = (grey[order[step]] > thresholds[step]).astype(np.float32)
        state, now = half.train_step(state, images, half.to_numpy(draws.noise)[step])
        np.testing.assert_allclose(float(now.total), float(terms.total[step]), rtol=2e-6)
    for name, array in half.to_arrays(state.model).items():
        gap = np.abs(array - half.to_arrays(whole.model)[name]).max()
        assert gap <= (1e-2 if half.__name__ == "jax_vae" else 0) * 1e-2


def test_numpy_batches_are_copied(half, labelled):
    """`train_step` on buffers that the caller overwrites at once, as on arrays that stay."""
    config = config_of("none", precision="float32")
    images = labelled.train.images[:200].astype(np.float32) / 255
    noise = np.random.default_rng(0).standard_normal((200, 2)).astype(np.float32)
    _, expected = half.train_step(half.create_state(config), images, noise)
    for _ in range(10):
        image_buffer, noise_buffer, state = images.copy(), noise.copy(), half.create_state(config)
        _, terms = half.train_step(state, image_buffer, noise_buffer)
        image_buffer[:], noise_buffer[:] = 0, 9
        assert float(terms.total) == float(expected.total)


def test_evaluation_is_in_double_precision(half, labelled):
    config = config_of("none", precision="float32")
    for term in half.evaluate(half.create_model(config), labelled.test.images, config).named().values():
        assert term.dtype == np.float64


def test_labels_stay_with_their_images(labelled, tmp_path):
    split = labelled.train
    for part in (labelled.train, labelled.validation, labelled.test):
        np.testing.assert_array_equal(part.images[:, 0, 0, 0], part.labels)
    np.savez(tmp_path / "a.npz", x_train=split.images, y_train=split.labels, x_test=split.images, y_test=split.labels)
    loaded = datasets.load(str(tmp_path / "a.npz"))
    datasets._write_cache(datasets.cache_path("mnist", tmp_path), loaded)
    for again in (loaded, datasets.load("mnist", data_dir=tmp_path), loaded.hold_out(30)):
        for part in (again.train, again.test, again.validation or again.test):
            np.testing.assert_array_equal(part.images[:, 0, 0, 0], part.labels)


def test_a_refused_resume_leaves_every_file(half, labelled, tmp_path):
    """Other images, another epoch, another model: said in one line, and nothing was touched."""
    config = config_of("none")
    trainer.train(half, config, labelled, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    point = checkpoints.read(tmp_path / "checkpoint.safetensors")
    other = replace(labelled, train=labelled.validation)
    lost = {name: array for name, array in point.arrays.items() if name != "adam.second.decoder.logits.bias"}
    early = point.arrays | {"adam.step": np.array(3)}
    wide = replace(config, network=replace(config.network, hidden=(7,)))
    for dataset, changed, resume, said in (
        (other, config, point, "was trained on other images"),
        (labelled, config, replace(point, epoch=1), "trained on while it was being read"),
        (
            labelled,
            config,
            replace(point, arrays=early),
            "expected 20 after 2 epochs",
        ),
        (labelled, config, replace(point, arrays=lost), "adam.second.decoder.logits.bias missing"),
        (labelled, wide, point, r"\(6, 12\), expected \(7, 12\)"),
    ):
        with pytest.raises(InputError, match=said):
            trainer.train(half, changed, dataset, tmp_path, resume=resume)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_killed_writers_leavings_are_removed(labelled, tmp_path):
    (tmp_path / ".checkpoint.safetensors.abc.part").write_bytes(b"half")
    trainer.train(HALVES["torch"], config_of("none", epochs=0), labelled, tmp_path)
    assert not list(tmp_path.glob(".*"))
