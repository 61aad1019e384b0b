"""The loader: every name, every binarization, every failure in one line."""

import gzip
import os
import shutil
import sys

import numpy as np
import pytest

from vae_common.data import datasets, pixels
from vae_common.data.seen import binarize, evaluation_images, training_images
from vae_common.errors import InputError

pytestmark = pytest.mark.quick

IMAGES, LABELS = np.arange(5 * 12, dtype=np.uint8).reshape(5, 4, 3), np.arange(5)


def npz(path, **changes):
    arrays = {"train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES[:2], "test_labels": LABELS[:2]}
    np.savez(path, **{k: v for k, v in (arrays | changes).items() if v is not None})
    return str(path)


def refused(name, said, **options):
    with pytest.raises(InputError) as error:
        datasets.load(name, **options)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_digits(digits):
    assert (len(digits.train), len(digits.test)) == (1500, 297)
    assert digits.image_shape == (28, 28, 1)
    assert digits.train.images.dtype == np.uint8
    assert digits.train.images.max() == 255
    assert digits.class_names == tuple("0123456789")
    assert np.bincount(np.concatenate([digits.train.labels, digits.test.labels])).sum() == 1797
    with pytest.raises(ValueError, match="read-only"):
        digits.train.images[0] = 0


def test_digits_are_the_8x8_images_enlarged(digits):
    from sklearn.datasets import load_digits

    from vae_common import randomness

    source = load_digits()
    first = randomness.split_order(1797)[0]
    assert digits.test.labels[0] == source.target[first]
    corners = digits.test.images[0, ::27, ::27, 0] / 255 * 16
    np.testing.assert_allclose(corners, source.images[first][::7, ::7], atol=0.05)


def test_npz_grey_and_colour(tmp_path):
    grey = datasets.load(npz(tmp_path / "a.npz"))
    assert grey.image_shape == (4, 3, 1)
    np.testing.assert_array_equal(grey.train.images[..., 0], IMAGES)
    colour = np.random.default_rng(0).integers(0, 256, (5, 4, 2, 3), np.uint8)
    loaded = datasets.load(npz(tmp_path / "b.npz", train_images=colour, test_images=colour[:2]))
    assert loaded.image_shape == (4, 2, 3)
    np.testing.assert_array_equal(loaded.test.images, colour[:2])


def test_keras_names_in_npz(tmp_path):
    np.savez(tmp_path / "k.npz", x_train=IMAGES, y_train=LABELS, x_test=IMAGES, y_test=LABELS)
    assert len(datasets.load(str(tmp_path / "k.npz")).test) == 5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train_labels": LABELS[:4]}, "received labels int64 (4,) for 5 images"),
        ({"train_labels": LABELS / 2}, "expected one integer per image"),
        ({"test_images": IMAGES[:0], "test_labels": LABELS[:0]}, "test split: received no images"),
        ({"train_images": IMAGES / 255.0}, "expected one shape and type"),
        ({"train_images": IMAGES.reshape(5, 12)}, "not images"),
        ({"test_images": IMAGES[:2, :3]}, "expected one shape"),
        ({"train_labels": LABELS + 10**6}, "labels from 1000000 to 1000004, expected class numbers from 0 to 9999"),
        ({"test_images": None}, "expected train_images, test_images and"),
    ],
)
def test_npz_refused(tmp_path, changes, said):
    refused(npz(tmp_path / "a.npz", **changes), said)


def test_npz_damaged(tmp_path):
    path = tmp_path / "a.npz"
    npz(path)
    path.write_bytes(path.read_bytes()[:-100])
    refused(str(path), "cannot be read as .npz")
    with open(path, "wb") as file:
        np.save(file, IMAGES)
    refused(str(path), "cannot be read as .npz")
    refused(str(tmp_path / "none.npz"), "does not exist")
    refused(str(tmp_path / "folder"), "does not exist")


def test_idx_folder(mnist_files, tmp_path):
    mnist = datasets.load(str(mnist_files))
    assert (len(mnist.train), len(mnist.test)) == (60000, 10000)
    assert mnist.image_shape == (28, 28, 1)
    assert mnist.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    for file in mnist_files.iterdir():  # unpacked files are read too
        (tmp_path / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    np.testing.assert_array_equal(datasets.load(str(tmp_path)).test.images, mnist.test.images)


def test_idx_damaged(mnist_files, tmp_path):
    for file in mnist_files.iterdir():
        shutil.copy(file, tmp_path / file.name)
    images = tmp_path / "t10k-images-idx3-ubyte.gz"
    images.chmod(0o644)
    whole = images.read_bytes()
    images.write_bytes(whole[: len(whole) // 2])
    refused(str(tmp_path), "is damaged")
    images.write_bytes(gzip.compress(gzip.decompress(whole)[:-1], 1))
    refused(str(tmp_path), "holds 7839999 bytes, expected 7840000")
    images.write_bytes(gzip.compress(b"\0\0\x08\x01" + bytes(20)))
    refused(str(tmp_path), "expected the IDX number 00000803")
    images.unlink()
    refused(str(tmp_path), "has no file t10k-images-idx3-ubyte[.gz]")


def test_cache_round_trip_and_damage(tmp_path, small):
    path = datasets.cache_path("mnist", tmp_path)
    datasets._write_cache(path, small)
    again = datasets.load("mnist", data_dir=tmp_path)
    np.testing.assert_array_equal(again.train.images, small.train.images)
    assert (again.class_names, again.source) == (small.class_names, small.source)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:5000] + bytes([whole[5000] ^ 255]) + whole[5001:]):
        path.write_bytes(damaged)
        refused("mnist", f"delete {path} and load mnist again", data_dir=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_failed_write_leaves_nothing(tmp_path, small, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        datasets._write_cache(datasets.cache_path("mnist", tmp_path), small)
    assert not list(tmp_path.iterdir())


def test_without_tensorflow_datasets(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    refused("mnist", "needs tensorflow-datasets", data_dir=tmp_path)


def test_binarize(small):
    grey = small.test.images
    assert binarize(grey, "none", "test") is grey
    threshold = binarize(grey, "threshold", "test")
    np.testing.assert_array_equal(threshold, np.where(grey / 255 >= 0.5, 255, 0))
    static = binarize(grey, "static", "test")
    assert set(np.unique(static)) == {0, 255}
    assert static.mean() == pytest.approx(grey.mean(), rel=0.01)
    np.testing.assert_array_equal(static, binarize(grey, "static", "test"))
    assert not np.array_equal(static, binarize(grey, "static", "train"))


def test_dynamic_evaluates_on_the_static_draw_and_trains_on_grey(small):
    np.testing.assert_array_equal(training_images(small, "dynamic"), small.train.images)
    split, images = evaluation_images(small, "dynamic")
    assert split == "test"
    np.testing.assert_array_equal(images, binarize(small.test.images, "static", "test"))


def test_hold_out(small):
    held = small.hold_out(50)
    assert (len(held.train), len(held.validation), len(held.test)) == (150, 50, 70)
    both = np.concatenate([held.train.images, held.validation.images])
    assert sorted(map(bytes, both)) == sorted(map(bytes, small.train.images))
    assert evaluation_images(held, "none")[0] == "validation"
    with pytest.raises(InputError, match="validation_size: received 200"):
        small.hold_out(200)


def test_user_images_in_any_shape():
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 1), np.uint8)
    for shape in ((4, 6, 5, 1), (4, 6, 5), (4, 30)):
        np.testing.assert_array_equal(pixels.as_unit_images(images.reshape(shape), (6, 5, 1)), images)
    for bad in (images[0], images[:, :5], np.full((4, 30), np.nan), np.full((4, 30), 2.0), images.astype(int)):
        with pytest.raises(InputError):
            pixels.as_unit_images(bad, (6, 5, 1))
    assert pixels.as_unit_images(images[:0], (6, 5, 1)).shape == (0, 6, 5, 1)
    np.testing.assert_array_equal(pixels.as_unit_images(images > 9, (6, 5, 1)), np.where(images > 9, 255, 0))
