"""TensorFlow Datasets for real: names, failures, and MNIST from its original files, end to end."""

import shutil
import socket

import numpy as np
import pytest

from tests.data.test_datasets import refused
from vae_common.data import datasets


@pytest.fixture
def tfds():
    return pytest.importorskip("tensorflow_datasets", reason="tensorflow-datasets is not installed")


def test_tfds_names_that_cannot_be(tmp_path, tfds):
    refused("mnistt", "did you mean mnist", data_dir=tmp_path)
    refused("imdb_reviews", "not images", data_dir=tmp_path)
    refused("emnist/lettters", "received 'emnist/lettters': BuilderConfig lettters not found", data_dir=tmp_path)
    refused("cifar10:9.9.9", "cannot be loaded at version 9.9.9", data_dir=tmp_path)


def test_tfds_without_network(tmp_path, monkeypatch, tfds):
    def no_network(*args, **kwargs):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    # Refused before the downloader starts its minutes of retries.
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", no_network)
    refused("fashion_mnist", "pass it as manual_dir", data_dir=tmp_path)
    refused("mnist", "expected a folder", data_dir=tmp_path, manual_dir=tmp_path / "none")


def test_tfds_without_tensorflow(mnist_files, tmp_path, monkeypatch, tfds):
    def no_tensorflow(*args, **kwargs):
        raise ImportError("No module named 'tensorflow'")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", no_tensorflow)
    refused("mnist", "needs TensorFlow", data_dir=tmp_path, manual_dir=mnist_files)


def test_tfds_checksums(mnist_files, tmp_path, tfds):
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    originals = tmp_path / "originals"
    originals.mkdir()
    for file in mnist_files.iterdir():
        shutil.copy(file, originals / file.name)
    bad = originals / "t10k-labels-idx1-ubyte.gz"
    bad.chmod(0o644)
    bad.write_bytes(bad.read_bytes()[:-1] + b"x")
    refused("mnist", "does not match its checksum", data_dir=tmp_path / "data", manual_dir=originals)
    assert not datasets.cache_path("mnist", tmp_path / "data").exists()


def test_tfds_mnist_end_to_end(mnist_files, tmp_path, tfds):
    """TensorFlow Datasets checks, prepares and reads the original files; then the cache serves alone."""
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    prepared = datasets.load("mnist", data_dir=tmp_path, manual_dir=mnist_files)
    cached = datasets.load("mnist", data_dir=tmp_path)
    direct = datasets.load(str(mnist_files))
    assert prepared.source.startswith("TensorFlow Datasets mnist/3")
    assert prepared.class_names == tuple("0123456789")
    for split in ("train", "test"):
        a, b, c = (getattr(dataset, split) for dataset in (prepared, cached, direct))
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)
        # TensorFlow Datasets shuffles the images; with that order undone they are the originals.
        assert sorted(map(bytes, a.images)) == sorted(map(bytes, c.images))
        assert np.bincount(a.labels).tolist() == np.bincount(c.labels).tolist()
    # Left on the disk as ArrayRecord it is the same set.
    pytest.importorskip("grain", reason="grain is not installed")
    streamed = datasets.load("mnist", data_dir=tmp_path, stream=True)
    assert streamed.class_names == prepared.class_names
    for split, rows in (("train", [59_999, 7, 7, 31_000]), ("train", []), ("test", range(10_000))):
        a, b = (getattr(dataset, split) for dataset in (prepared, streamed))
        np.testing.assert_array_equal(a.labels, b.labels)
        np.testing.assert_array_equal(a.images[list(rows)], b.images[list(rows)])
