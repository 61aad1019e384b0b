"""Folders of image files, 16-bit and float images, MedMNIST's files, .npy pairs: taken, trained on, and kept apart."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.configs import small_config
from tests.conftest import HALVES, SMALL_IMAGES, SMALL_LABELS, npz
from vae_common.config import Config, DataConfig, LossConfig, NetworkConfig, TrainingConfig
from vae_common.data import batches, datasets, decoding, image_folders, pixels
from vae_common.data.seen import binarize
from vae_common.errors import InputError
from vae_common.runs import trainer
from vae_common.runs.folder import Run

DRAW = np.random.default_rng(0)


def files(folder, count=6, size=(20, 24), modes=("RGB",), endings=(".png",)):
    """Image files of these modes and endings in turn."""
    folder.mkdir(parents=True)
    for i in range(count):
        mode = modes[i % len(modes)]
        shape = (*size, {"L": 1, "RGB": 3, "RGBA": 4, "P": 3, "I;16": 1}[mode])
        values = DRAW.integers(0, 65536 if mode == "I;16" else 256, shape, np.uint16 if mode == "I;16" else np.uint8)
        image = Image.fromarray(values.squeeze())
        image = image.quantize(16) if mode == "P" else image
        image.save(folder / f"{i:02}{endings[i % len(endings)]}")


@pytest.fixture
def tree(tmp_path):
    for split, count in (("train", 8), ("test", 4)):
        for name in ("cat", "dog"):
            files(tmp_path / "tree" / split / name, count)
    return tmp_path / "tree"


# Folders of image files


def test_splits_and_classes(tree, tmp_path):
    dataset = datasets.load(tree, data_dir=tmp_path / "data")
    assert (dataset.name, dataset.image_shape) == ("tree", (20, 24, 3))
    assert (len(dataset.train), len(dataset.test)) == (16, 8)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.train.labels.tolist() == [0] * 8 + [1] * 8
    first = np.asarray(Image.open(tree / "train" / "cat" / "00.png"))
    np.testing.assert_array_equal(dataset.train.images[0], first)
    files(tree / "val" / "cat", 3)
    files(tree / "val" / "dog", 3)
    assert len(datasets.load(tree, data_dir=tmp_path / "data").validation) == 6


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_without_a_test_split_a_fixed_draw_is_one(tmp_path, share):
    for name in ("a", "b"):
        files(tmp_path / "f" / name, 20)
    found = [datasets.load(tmp_path / "f", data_dir=tmp_path / f"d{i}", test_share=share) for i in range(2)]
    assert len(found[0].test) == round(40 * share)
    assert found[0].fingerprint == found[1].fingerprint
    assert set(found[0].test.labels.tolist()) == {0, 1}
    both = np.concatenate([found[0].train.images, found[0].test.images])
    assert len(np.unique(both.reshape(40, -1), axis=0)) == 40


def test_no_classes(tmp_path):
    files(tmp_path / "f", 10, modes=("L",), endings=(".png", ".tiff", ".bmp"))
    dataset = datasets.load(tmp_path / "f", data_dir=tmp_path / "data")
    assert (dataset.image_shape, dataset.class_names) == ((20, 24, 1), ())
    assert set(dataset.train.labels.tolist()) == {-1}


@pytest.mark.parametrize(
    ("modes", "channels", "dtype"),
    [
        (("L",), 1, "uint8"),
        (("RGB",), 3, "uint8"),
        (("L", "RGB"), 3, "uint8"),
        (("P",), 3, "uint8"),
        (("RGBA",), 4, "uint8"),
        (("RGBA", "RGB"), 3, "uint8"),
        (("I;16",), 1, "float32"),
        (("I;16", "L"), 1, "float32"),
    ],
)
def test_modes_become_one_kind(tmp_path, modes, channels, dtype):
    files(tmp_path / "f", 8, modes=modes)
    dataset = datasets.load(tmp_path / "f", data_dir=tmp_path / "data")
    assert dataset.image_shape[2] == channels
    assert dataset.train.images.dtype == dtype
    if dtype == "float32":
        assert 0.9 < dataset.train.images.max() <= 1
        sixteen = np.asarray(Image.open(tmp_path / "f" / "00.png")) / 65535
        everything = np.concatenate([dataset.train.images, dataset.test.images])[..., 0]
        assert np.abs(everything - sixteen).max((1, 2)).min() < 1e-7


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".tif", ".jpeg", ".PNG"])
def test_every_ending(tmp_path, ending):
    files(tmp_path / "f", 4, endings=(ending,))
    assert len(datasets.load(tmp_path / "f", data_dir=tmp_path / "data").train) == 3


@pytest.mark.parametrize("size", [8, 32])
@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "I;16"])
def test_sizes(tmp_path, size, fit, mode):
    """An image with a bright middle half: a crop keeps it from edge to edge, a pad has black beside."""
    files(tmp_path / "f", 3, modes=(mode,))
    white = {"I;16": 65535}.get(mode, 255)
    values = np.full((20, 40, *([4] if mode == "RGBA" else [3] if mode == "RGB" else [])), white)
    Image.fromarray(values.astype(np.uint16 if mode == "I;16" else np.uint8)).save(tmp_path / "f" / "white.png")
    dataset = datasets.load(tmp_path / "f", data_dir=tmp_path / "data", image_size=size, fit=fit)
    assert dataset.image_shape[:2] == (size, size)
    brightest = max((image for split in dataset.splits.values() for image in split.images), key=lambda i: i.mean())
    corner, middle = brightest[0, size // 2, 0], brightest[size // 2, size // 2, 0]
    assert middle > 0.98 * brightest.max()
    assert (corner < 0.02 * middle) == (fit == "pad")


def test_an_upright_photograph_stays_upright(tmp_path):
    files(tmp_path / "f", 3, size=(20, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(DRAW.integers(0, 256, (10, 20, 3), np.uint8)).save(tmp_path / "f" / "turned.png", exif=exif)
    assert datasets.load(tmp_path / "f", data_dir=tmp_path / "data").image_shape == (20, 10, 3)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "cat" / "bad.png").write_bytes(b"no image"), "bad.png cannot be read as an image"),
        (lambda f: (f / "cat" / "cut.png").write_bytes((f / "cat" / "00.png").read_bytes()[:200]), "cut.png cannot be"),
        (lambda f: (f / "cat" / "none.jpg").touch(), "none.jpg cannot be read"),
        (lambda f: files(f / "cow", 1, size=(9, 9)), "expected one size, or --image-size"),
        (lambda f: Image.new("RGB", (24, 20)).save(f / "loose.png"), "image files and class folders"),
        (lambda f: [shutil.rmtree(f / name) for name in ("cat", "dog")], "MNIST's four IDX files"),
        (lambda f: (f / "test").mkdir(), "expected train among them"),
        (lambda f: files(f / "train" / "x", 3) or files(f / "test", 3), "expected all of them or none"),
        (lambda f: Image.fromarray(DRAW.random((20, 24)).astype(np.float32)).save(f / "cat" / "f.tiff"), "grey"),
        (lambda f: Image.new("I;16", (24, 20)).save(f / "dog" / "deep.png"), "16-bit ones to be all grey"),
        (
            lambda f: Image.new("L", (24, 20)).save(
                f / "cat" / "pages.tif", save_all=True, append_images=[Image.new("L", (24, 20))]
            ),
            "holds 2 images, expected one a file",
        ),
    ],
)
def test_folders_that_are_none(tmp_path, refused, spoil, said):
    for name in ("cat", "dog"):
        files(tmp_path / "f" / name, 3)
    spoil(tmp_path / "f")
    refused("train", "--dataset", "f", "--batch-size", 2, cwd=tmp_path, said=said)


def test_worker_processes_give_the_same(tmp_path, monkeypatch):
    files(tmp_path / "f", 40, endings=(".png", ".jpg"))
    alone = datasets.load(tmp_path / "f", data_dir=tmp_path / "a")
    monkeypatch.setattr(image_folders, "FEW", 8)
    monkeypatch.setattr(image_folders.os, "cpu_count", lambda: 2)
    calls = []
    original = image_folders._by_worker
    monkeypatch.setattr(image_folders, "_by_worker", lambda *of: (calls.append(1), original(*of))[1])
    assert datasets.load(tmp_path / "f", data_dir=tmp_path / "b").fingerprint == alone.fingerprint
    assert len(calls) >= 2
    (tmp_path / "f" / "zz.png").write_bytes((tmp_path / "f" / "00.png").read_bytes()[:700])
    with pytest.raises(InputError, match=r"zz.png cannot be read as an image"):
        datasets.load(tmp_path / "f", data_dir=tmp_path / "c")


def test_decoded_once(tree, tmp_path, monkeypatch):
    """Kept as a file, and decoded anew where a file, or what is asked for, has changed."""
    first = datasets.load(tree, data_dir=tmp_path / "data", image_size=8)
    decoded = []
    original = decoding.decode
    monkeypatch.setattr(image_folders, "decode", lambda *of: (decoded.append(of), original(*of))[1])
    assert datasets.load(tree, data_dir=tmp_path / "data", image_size=8).fingerprint == first.fingerprint
    assert not decoded
    moved = shutil.move(tree, tmp_path / "moved")
    assert len(datasets.load(moved, data_dir=tmp_path / "data", image_size=9).train) == 16
    assert len(decoded) == 24
    Image.new("RGB", (24, 20), "white").save(tmp_path / "moved" / "train" / "cat" / "00.png")
    assert datasets.load(moved, data_dir=tmp_path / "data", image_size=8).fingerprint != first.fingerprint


# 16-bit and float images


RANGES = [
    (SMALL_IMAGES.astype(np.uint16) * 257, None, SMALL_IMAGES / 255),
    (SMALL_IMAGES.astype(np.uint16) * 16, (0, 4080), SMALL_IMAGES / 255),
    (SMALL_IMAGES.astype(np.float32) / 255, None, SMALL_IMAGES / 255),
    (SMALL_IMAGES.astype(np.float64) / 127.5 - 1, (-1, 1), SMALL_IMAGES / 255),
    (SMALL_IMAGES.astype(np.float16), (0, 255), SMALL_IMAGES / 255),
]


@pytest.mark.parametrize(("images", "span", "expected"), RANGES)
@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_ranges(tmp_path, monkeypatch, images, span, expected, kind):
    monkeypatch.chdir(tmp_path)
    name = npz(tmp_path, train_images=images, test_images=images[:6]) if kind == "npz" else "a.npy"
    if kind == "npy":
        np.save("a.npy", images)
        np.save("a_labels.npy", SMALL_LABELS[:, None])
    dataset = datasets.load(name, value_range=span)
    assert dataset.train.images.dtype == np.float32
    if kind == "npz":
        np.testing.assert_allclose(dataset.train.images, expected, atol=1e-6)
    else:
        assert (len(dataset.train), len(dataset.test), dataset.class_names) == (22, 2, ("0", "1", "2"))


@pytest.mark.parametrize(
    ("images", "span", "said"),
    [
        (SMALL_IMAGES.astype(np.uint16), None, "state their value_range"),
        (SMALL_IMAGES.astype(np.uint16) * 16, None, "state their value_range"),
        (SMALL_IMAGES / 255 / 50, None, "state their value_range"),
        (SMALL_IMAGES.astype(np.float32), None, "expected 0 to 1: finite, and within a stated value_range"),
        (SMALL_IMAGES / 255 - 0.5, None, "expected 0 to 1"),
        (np.where(SMALL_IMAGES > 250, np.nan, 0.5), None, "expected 0 to 1"),
        (np.where(SMALL_IMAGES > 250, np.inf, 0.5), (0, 3e38), "expected 0 to"),
        (SMALL_IMAGES.astype(np.uint16) * 257, (0, 4095), "expected 0 to 4095"),
        (SMALL_IMAGES, (0, 255), "for 8-bit images"),
        (SMALL_IMAGES.astype(np.int32), None, "received int32"),
        (SMALL_IMAGES.astype(complex), None, "received complex128"),
    ],
)
def test_ranges_that_are_not_sure(tmp_path, monkeypatch, images, span, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said):
        datasets.load(npz(tmp_path, train_images=images, test_images=images[:6]), value_range=span)


@pytest.mark.parametrize("span", [(1, 0), (0, 0), (0,), (0, 1, 2), "01", (0, float("nan")), (0, 1e300), 5])
def test_a_range_that_is_none(span):
    with pytest.raises(InputError, match="value_range: received"):
        DataConfig(value_range=span)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("reconstruction", ["gaussian", "learned_gaussian"])
def test_more_levels_are_trained_on_as_they_are(tmp_path, dtype, reconstruction):
    """Both halves and an 8-bit set of the same values end in the same weights; finer ones do not."""
    fine = (SMALL_IMAGES.astype(np.float32) + 0.25) / 256
    sets = {}
    for name, images in (("fine", fine), ("same", SMALL_IMAGES / np.float32(255)), ("bytes", SMALL_IMAGES)):
        sets[name] = datasets.load(tmp_path / npz(tmp_path, f"{name}.npz", train_images=images, test_images=images[:6]))
    config = small_config(
        dtype=dtype,
        image_shape=(8, 6, 1),
        network=NetworkConfig(hidden=(6,), latent_dim=2, output_bias="data_mean"),
        loss=LossConfig(reconstruction=reconstruction),
        training=TrainingConfig(precision=dtype, batch_size=8, epochs=2),
    )
    found = {}
    for name, dataset in sets.items():
        for framework, half in HALVES.items():
            state = half.fit(half.create_state(config, dataset.train.images), dataset)
            found[name, framework] = half.state_to_arrays(state)["encoder.mean.weight"]
    tolerance = {"rtol": 1e-9} if dtype == "float64" else {"rtol": 2e-3, "atol": 1e-5}
    for name in sets:
        np.testing.assert_allclose(found[name, "jax"], found[name, "torch"], **tolerance)
    np.testing.assert_allclose(found["same", "jax"], found["bytes", "jax"], rtol=1e-5, atol=1e-6)
    assert np.abs(found["fine", "jax"] - found["bytes", "jax"]).max() > 1e-6


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (Config(loss=LossConfig(reconstruction="discretized_logistic")), "which is of 8-bit pixels"),
        (Config(data=DataConfig(binarization="static")), "which draws 8-bit pixels"),
        (Config(data=DataConfig(binarization="dynamic")), "which draws 8-bit pixels"),
    ],
)
def test_what_is_made_for_bytes_refuses_them(half, tmp_path, config, said):
    images = SMALL_IMAGES / np.float32(255)
    dataset = datasets.load(tmp_path / npz(tmp_path, train_images=images, test_images=images[:6]))
    config = dataclasses.replace(config, image_shape=(8, 6, 1), training=TrainingConfig(batch_size=8))
    with pytest.raises(InputError, match=said):
        trainer.require_trainable(half, config, dataset)
    with pytest.raises(InputError, match=said):
        half.fit(half.create_state(config), dataset)
    assert set(np.unique(binarize(images, "threshold", "train")).tolist()) == {0, 255}


def test_unit():
    np.testing.assert_array_equal(pixels.unit(SMALL_IMAGES), SMALL_IMAGES / 255)
    np.testing.assert_array_equal(pixels.unit(SMALL_IMAGES / 255), SMALL_IMAGES / 255)
    config = Config(image_shape=(8, 6, 1))
    for images in (SMALL_IMAGES, SMALL_IMAGES > 9, SMALL_IMAGES / np.float32(255)):
        batches.require_resident(config, images)
    for images in (SMALL_IMAGES.astype(np.float32), SMALL_IMAGES / 255, -(SMALL_IMAGES / np.float32(255))):
        with pytest.raises(InputError, match="images: received"):
            batches.require_resident(config, images)


# Names and shapes that others write


@pytest.mark.parametrize("prefix", ["val", "validation"])
def test_medmnists_files_as_they_are(half, tmp_path, monkeypatch, prefix):
    """Labels of shape (N, 1), and a validation split of its own."""
    monkeypatch.chdir(tmp_path)
    colour = DRAW.integers(0, 256, (24, 8, 6, 3), np.uint8)
    arrays = {"train_images": colour, "test_images": colour[:6], f"{prefix}_images": colour[6:12]}
    labels = {"train_labels": SMALL_LABELS[:, None].astype(np.uint8), "test_labels": SMALL_LABELS[:6, None]}
    np.savez("m.npz", **arrays, **labels, **{f"{prefix}_labels": SMALL_LABELS[6:12, None]})
    dataset = datasets.load("m.npz")
    assert [len(split) for split in dataset.splits.values()] == [24, 6, 6]
    assert dataset.train.labels.shape == (24,)
    config = small_config(image_shape=(8, 6, 3), training=TrainingConfig(batch_size=8, epochs=1))
    (tmp_path / "r").mkdir()
    trainer.train(half, config, dataset, tmp_path / "r")
    assert "validation" in Run(tmp_path / "r").checkpoint().history[0]
    with pytest.raises(InputError, match="has 6 validation images; expected 0"):
        dataset.hold_out(3)


def test_a_folder_of_npy_files(tmp_path):
    folder = tmp_path / "arrays"
    folder.mkdir()
    for name, array in (("train_images", SMALL_IMAGES), ("x_test", SMALL_IMAGES[:6]), ("train_labels", SMALL_LABELS)):
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "y_test.npy", SMALL_LABELS[:6])
    dataset = datasets.load(folder)
    assert (dataset.name, len(dataset.train), len(dataset.test)) == ("arrays", 24, 6)
    (folder / "train_images.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match=r"cannot be read as \.npy"):
        datasets.load(folder)


@pytest.mark.parametrize("array", [np.float64(3), np.zeros(1), np.array([{"a": 1}], object), np.zeros((24, 8))])
def test_an_npy_that_is_none(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match="dataset"):
        datasets.load(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", SMALL_IMAGES)
    np.save(tmp_path / "b_labels.npy", SMALL_LABELS[:5])
    with pytest.raises(InputError, match="expected a label for each of 24"):
        datasets.load(tmp_path / "b.npy")


# Data that moved, and names for classes


def test_data_that_moved(command, refused, tmp_path):
    npz(tmp_path)
    (tmp_path / "there").mkdir()
    quick = ("--framework", "torch", "--epochs", 1, "--hidden", 4, "--batch-size", 8)
    assert command("train", "--dataset", "a.npz", "--output", "r", *quick, cwd=tmp_path).status == 0
    shutil.move(tmp_path / "a.npz", tmp_path / "there" / "b.npz")
    for flags in (("evaluate", "--run", "r"), ("plot", "--run", "r"), ("train", "--resume", "r")):
        refused(*flags, cwd=tmp_path, said="does not exist")
        moved = ("--dataset", "there/b.npz", "--data-dir", "there")
        more = {"evaluate": ("--samples", 0), "plot": ("--steps", 2, "--grid-side", 2)}.get(flags[0], ("--epochs", 2))
        assert command(*flags, *moved, *more, cwd=tmp_path).status == 0
    npz(tmp_path, "c.npz", test_labels=SMALL_LABELS[:6] * 0)
    refused("train", "--resume", "r", "--dataset", "c.npz", "--epochs", 3, cwd=tmp_path, said="other images, labels")
    assert Run(tmp_path / "r").checkpoint().config.data.dataset == "there/b.npz"


def test_names_for_classes(command, refused, tmp_path):
    npz(tmp_path)
    quick = ("--framework", "torch", "--epochs", 1, "--hidden", 4, "--batch-size", 8, "--dataset", "a.npz")
    refused("train", *quick, "--class-names", "a", "b", cwd=tmp_path, said="received 2, expected 3: one per label")
    done = command("train", *quick, "--class-names", "cat", "dog", "cow", "--output", "r", cwd=tmp_path)
    assert done.status == 0
    config = json.loads((tmp_path / "r" / "config.json").read_text())["config"]
    assert config["data"]["class_names"] == ["cat", "dog", "cow"]
    plot = ("plot", "--run", "r", "--steps", 2, "--grid-side", 2)
    assert command(*plot, "--class-names", "x", "y", "z", cwd=tmp_path).status == 0
    refused(*plot, "--class-names", "x", cwd=tmp_path, said="expected 3")


@pytest.mark.parametrize(("name", "other"), [("jax", "torch"), ("torch", "jax")])
def test_a_framework_that_is_not_installed(command, refused, tmp_path, monkeypatch, name, other):
    """Its runs are plotted and evaluated by the other half; what needs it says so in a line."""
    from vae_common import backend
    from vae_common.backend import load_halves

    npz(tmp_path)
    quick = ("--epochs", 1, "--hidden", 4, "--batch-size", 8, "--dataset", "a.npz", "--output", "r")
    assert command("train", "--framework", name, *quick, cwd=tmp_path).status == 0
    monkeypatch.setattr(backend, "missing", lambda framework: ["the package"] if framework == name else [])
    for flags in (("evaluate", "--run", "r", "--samples", 0), ("plot", "--run", "r", "--steps", 2, "--grid-side", 2)):
        done = command(*flags, cwd=tmp_path)
        assert done.status == 0, done.err
        assert f"notice: the package is not installed; {other} does the work of {name}" in done.err
        assert json.loads(done.out.splitlines()[-1])["framework"] == other
    with pytest.raises(InputError, match=f"{name} needs the package, which is not installed"):
        load_halves(name)
