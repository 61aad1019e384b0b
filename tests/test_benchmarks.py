"""The benchmark's numbers are what they say; how large they are is measured elsewhere."""

import json

import pytest

from tests.conftest import script


def test_step_over_floor(tmp_path):
    flags = ("--hidden", 16, "--batch-size", 8, "--steps", 3, "--rounds", 3, "--output", "r.json")
    result = script("benchmark", *flags, cwd=tmp_path)
    assert json.loads((tmp_path / "r.json").read_text()) == result
    parts = result["milliseconds"]
    assert set(parts) == {"products", "adam", "jax", "torch"}
    for half in ("jax", "torch"):
        ratio = result["step_over_floor"][half]
        assert 0 < ratio["lower_quartile"] <= ratio["median"] <= ratio["upper_quartile"]
    assert "expected >= 1 and >= 2" in script("benchmark", "--rounds", 1, cwd=tmp_path, status=2)


def test_products_are_those_of_a_step(monkeypatch):
    """Every product of forward and backward, by their multiply-adds."""
    import numpy as np

    from tests.conftest import small_config
    from vae_common import benchmarks

    counted = []

    class Counting(np.ndarray):
        def __matmul__(self, other):
            counted.append(self.shape[0] * self.shape[1] * other.shape[1])
            return np.ndarray.__matmul__(self, other)

    original = np.random.Generator

    class Draw:
        def random(self, shape):
            return original(np.random.PCG64(0)).random(shape).view(Counting)

    monkeypatch.setattr(benchmarks.np.random, "default_rng", lambda seed: Draw())
    config = small_config()
    benchmarks.matrix_products(config)()
    layers = [784 * 24, 24 * 3, 24 * 3, 3 * 24, 24 * 784]
    expected = config.training.batch_size * (3 * sum(layers) - 784 * 24)
    assert sum(counted) == pytest.approx(expected)
