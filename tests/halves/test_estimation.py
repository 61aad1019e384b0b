"""The importance-weighted likelihood against closed forms, streamed, in both halves."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import special, stats

from tests.configs import small_config
from tests.conftest import HALVES
from vae_common import randomness
from vae_common.config import DataConfig, LossConfig, NetworkConfig
from vae_common.errors import InputError

SIGMA, SHAPE = 0.3, (3, 2, 1)
CONFIG = small_config(
    network=NetworkConfig(hidden=(), latent_dim=2), loss=LossConfig(reconstruction="gaussian", sigma=SIGMA)
)
CONFIG = replace(CONFIG, image_shape=SHAPE)
DRAW = np.random.default_rng(0)
MEAN, IMAGES = DRAW.random(6), DRAW.random((400, *SHAPE))
BASIS = np.linalg.qr(DRAW.normal(size=(6, 2)))[0] * [0.7, 0.4]  # orthogonal columns: the posterior is diagonal
EXACT = stats.multivariate_normal(MEAN, BASIS @ BASIS.T + SIGMA**2 * np.eye(6)).logpdf(IMAGES.reshape(400, 6))


@pytest.fixture
def linear(half, monkeypatch):
    """The half with pixels that are Gaussian around the logits themselves: then a linear VAE is probabilistic PCA."""
    own = half.likelihoods.LIKELIHOODS["gaussian"]
    constant = np.log(SIGMA) + np.log(2 * np.pi) / 2

    def linear_gaussian(logits, images, log_scale):
        return (((images - logits) / SIGMA) ** 2 / 2 + constant).sum((-3, -2, -1))

    assert own is not linear_gaussian
    monkeypatch.setitem(half.likelihoods.LIKELIHOODS, "gaussian", linear_gaussian)
    if hasattr(half.estimation._add, "clear_cache"):
        half.estimation._add.clear_cache()
    yield half
    if hasattr(half.estimation._add, "clear_cache"):
        half.estimation._add.clear_cache()


def pca(half, wider=0.0, shifted=0.0):
    """The linear VAE whose encoder is the exact posterior (Tipping and Bishop 1999, eq. 12), or one that is off."""
    precision = (BASIS**2).sum(0) + SIGMA**2
    projection = BASIS.T / precision[:, None]
    weights = {
        "encoder.mean.weight": projection,
        "encoder.mean.bias": -projection @ MEAN + shifted,
        "encoder.log_std.weight": np.zeros((2, 6)),
        "encoder.log_std.bias": np.log(SIGMA**2 / precision) / 2 + wider,
        "decoder.logits.weight": BASIS,
        "decoder.logits.bias": MEAN,
    }
    return half.load_arrays(half.create_model(CONFIG), weights, "float64", half.select_device("cpu"))


def test_with_the_exact_posterior_one_draw_is_exact(linear):
    found = linear.log_marginal(pca(linear), IMAGES, CONFIG, samples=1)
    np.testing.assert_allclose(found.log_likelihood, EXACT, rtol=1e-11)
    several = linear.log_marginal(pca(linear), IMAGES, CONFIG, samples=7)
    np.testing.assert_allclose(several.log_likelihood, EXACT, rtol=1e-11)
    assert several.error.max() < 1e-6


def test_it_converges_to_probabilistic_pca(linear):
    """From below, faster than 1/sqrt(k), within its own error."""
    model, gaps = pca(linear, wider=0.5, shifted=0.3), {}
    for samples in (1, 10, 100, 5000):
        found = linear.log_marginal(model, IMAGES, CONFIG, samples=samples)
        gaps[samples] = float((EXACT - found.log_likelihood).mean())
    assert gaps[1] > 0.5 > gaps[10] > 0.02 > gaps[100] > 0
    assert abs(gaps[5000]) < 0.003
    z = (found.log_likelihood - EXACT) / found.error
    assert np.abs(z).max() < 4.5
    assert 0.7 < z.std() < 1.4  # the error is neither too small nor too large


def test_halves_agree_and_the_draws_are_streamed(monkeypatch):
    """The sum over chunks is the sum over all draws at once; no chunk is larger than its limit."""
    config = small_config(data=DataConfig(binarization="static"))
    images = (np.random.default_rng(1).random((7, 28, 28, 1)) > 0.5).astype(np.float64)
    found = {}
    for name, half in HALVES.items():
        monkeypatch.setattr(half.estimation, "IMAGES", 3)
        monkeypatch.setattr(half.estimation, "DRAWS", 40)
        model = half.create_model(config)
        found[name] = half.log_marginal(model, images, config, samples=90)
    for a, b in zip(found["jax"], found["torch"]):
        np.testing.assert_allclose(a, b, rtol=1e-11)
    half, model = HALVES["torch"], HALVES["torch"].create_model(config)
    log_weights = np.zeros((7, 90))
    for first in (0, 3, 6):
        own = images[first : first + 3]
        for start in (0, 40, 80):
            shape = (len(own), min(40, 90 - start), config.noise_dim)
            outputs = half.forward(model, own, randomness.marginal_noise(first, start, shape))
            nats = np.logaddexp(0, outputs.logits) - outputs.logits * own[:, None]
            (layer,) = outputs.layers
            log_q = (-(layer.noise**2) / 2 - layer.posterior.log_std[:, None]).sum(-1)
            log_p = (-(outputs.latents**2) / 2).sum(-1)
            log_weights[first : first + 3, start : start + 40] = -nats.sum((-3, -2, -1)) + log_p - log_q
    expected = special.logsumexp(log_weights, 1) - np.log(90)
    np.testing.assert_allclose(found["torch"].log_likelihood, expected, rtol=1e-11)
    weights = np.exp(log_weights - expected[:, None])
    np.testing.assert_allclose(found["torch"].error, weights.std(1) / 90**0.5, rtol=1e-8)


def test_two_layers_and_labels(half):
    config = small_config("two_layer_vae", data=DataConfig(binarization="static"))
    config = replace(config, network=replace(config.network, classes=3, top_hidden=(5,), top_dim=2))
    images, labels = np.zeros((4, 28, 28, 1)), np.array([0, 1, 2, 0])
    found = half.log_marginal(half.create_model(config), images, config, 50, labels)
    assert np.isfinite(found.log_likelihood).all()
    assert (found.log_likelihood < 0).all()
    with pytest.raises(InputError, match="labels: received none"):
        half.log_marginal(half.create_model(config), images, config, 50)


@pytest.mark.parametrize(
    ("model", "said"),
    [("ae", "expected one that draws its latents"), ("vae", "not a likelihood.*expected a likelihood")],
)
def test_refused(half, model, said):
    config = small_config(model)
    with pytest.raises(InputError, match=said):
        half.log_marginal(half.create_model(config), np.zeros((1, 28, 28, 1)), config, 10)
    with pytest.raises(InputError, match="samples: received 0"):
        half.log_marginal(half.create_model(CONFIG), IMAGES, CONFIG, 0)
