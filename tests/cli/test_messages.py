"""A refusal names what is there, and the way on."""

import logging
import os
import warnings

import numpy as np
import pytest

from tests.configs import small_config
from tests.conftest import SMALL_LABELS as LABELS
from tests.conftest import npz, rendered
from vae_common.config import Config, LossConfig, NetworkConfig, TrainingConfig
from vae_common.contracts import Terms
from vae_common.data import datasets, readers
from vae_common.errors import InputError
from vae_common.figures.options import FigureOptions
from vae_common.runs import trainer
from vae_common.runs.epoch_records import NonFiniteLoss, Spent, epoch_record
from vae_common.runs.folder import Run


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.npy.gz", "unpack it first"),
        ("a.pkl", "runs code when it is read"),
        ("a.pt", "runs code when it is read"),
        ("a.h5", "h5py"),
        ("a.mat", "loadmat"),
        ("a.npz.gz", "unpack it first"),
        ("a.txt", "write an .npz"),
        ("noending", "write an .npz"),
    ],
)
def test_files_of_other_kinds_exist(refused, tmp_path, name, said):
    (tmp_path / name).write_bytes(b"x")
    line = refused("train", "--dataset", name, cwd=tmp_path, said=said)
    assert "which exists and is" in line
    (tmp_path / name).unlink()
    if "." in name and name != "a.txt":
        refused("train", "--dataset", name, cwd=tmp_path, said="does not exist")


def test_archives_in_capitals_and_with_keys_that_nobody_needs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    npz(tmp_path, "A.npz", extra=np.array([{"a": 1}], object))
    (tmp_path / "A.npz").rename("A.NPZ")
    assert len(datasets.load("A.NPZ").train) == 24


def test_no_labels_are_taken(half, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without = datasets.load(npz(tmp_path, train_labels=None, test_labels=None))
    minus = datasets.load(npz(tmp_path, "b.npz", train_labels=LABELS * 0 - 1, test_labels=LABELS[:6] * 0 - 1))
    for dataset in (without, minus):
        assert set(dataset.train.labels.tolist()) == {-1}
        assert dataset.class_names == ()
    assert without.fingerprint == minus.fingerprint
    config = small_config(image_shape=(8, 6, 1), training=TrainingConfig(batch_size=8, epochs=1))
    (tmp_path / "r").mkdir()
    trainer.train(half, config, without, tmp_path / "r")
    histories = [Run(tmp_path / "r").checkpoint().history]
    rendered({"A": half}, config, without, tmp_path / "f", FigureOptions(steps=2, grid_side=2), histories)
    with pytest.raises(InputError, match="or no labels at all"):
        datasets.load(npz(tmp_path, "c.npz", train_labels=LABELS / 2))


def idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(header + array.tobytes())


@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("channels", [1, 3])
def test_idx_files_by_both_names_and_in_colour(tmp_path, dot, channels):
    images = np.random.default_rng(0).integers(0, 256, (24, 8, 6, channels), np.uint8)
    images = images[..., 0] if channels == 1 else images
    for prefix, count in (("train", 24), ("t10k", 6)):
        idx(tmp_path / f"{prefix}-images{dot}idx{images.ndim}-ubyte", images[:count])
        idx(tmp_path / f"{prefix}-labels{dot}idx1-ubyte", LABELS[:count].astype(np.uint8))
    dataset = datasets.load(tmp_path)
    assert dataset.image_shape == (8, 6, channels)
    np.testing.assert_array_equal(dataset.test.images.squeeze(), images[:6].squeeze())


def test_padding_is_named():
    with pytest.raises(InputError, match=r"padded to 32x28 \(--image-size, np.pad\)"):
        Config("kl_autoencoder", image_shape=(30, 28, 1), network=NetworkConfig(block_channels=(8, 8, 8)))


def test_a_cache_of_another_version(tmp_path, small):
    path = datasets.cache_path("mnist", tmp_path)
    np.savez(path, cache_version=np.array(7), other=np.array([{"a": 1}], object))
    with pytest.raises(InputError, match="its cache is version 7, expected 1; delete"):
        datasets.load("mnist", data_dir=tmp_path)


def test_tensorflow_says_nothing_in_front(tmp_path, monkeypatch, capfd):
    def noisy(*_):
        logging.getLogger("absl").error("absl")
        warnings.warn("python", stacklevel=1)
        os.write(2, b"C++\n")
        raise InputError("dataset: one line")

    monkeypatch.setattr(readers, "_import_tfds", noisy)
    with pytest.raises(InputError, match="one line"):
        datasets.load("mnist", data_dir=tmp_path / "data")
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())

    def broken(*_):
        os.write(2, b"C++ says why\n")
        raise RuntimeError

    monkeypatch.setattr(readers, "_import_tfds", broken)
    with pytest.raises(RuntimeError):
        datasets.load("mnist", data_dir=tmp_path / "data")
    assert capfd.readouterr().err == "C++ says why\n"


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (LossConfig(beta=1e30), "try a smaller beta than 1e\\+30"),
        (LossConfig(commitment=1e30), "try a smaller commitment"),
        (LossConfig(reconstruction="gaussian", sigma=1e-9), "try a larger sigma"),
        (LossConfig(), "try a smaller learning_rate than 0.001, or clip_norm"),
    ],
)
def test_what_helps_where_a_loss_is_infinite(loss, said):
    terms = Terms(*np.full((3, 2), np.inf))
    with pytest.raises(NonFiniteLoss, match=said):
        epoch_record(
            0, Config("vq_vae" if loss.commitment > 1 else "vae", loss=loss), terms, "test", terms, Spent(1.0, 1, 0.0)
        )


@pytest.mark.parametrize("flag", ["--baseline", "--pilot"])
def test_a_binary_file_is_not_printed(refused, tmp_path, flag):
    (tmp_path / "f").write_bytes(bytes(range(256)) * 20)
    name = "benchmark" if flag == "--baseline" else "compare"
    more = () if flag == "--baseline" else ("--check", "independent", "--seeds", 0, 1)
    line = refused(name, flag, "f", *more, cwd=tmp_path, said="f cannot be read (it is no text)")
    assert len(line) < 200


def test_a_full_disk_names_the_path(command, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        done = command("train", "--framework", "torch", "--hidden", 8, "--output", "r", cwd=tmp_path)
    assert done.status == 2
    assert done.err.startswith("error: r/config.json: No space left on device; check the path, its permissions")
