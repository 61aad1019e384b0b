"""Each likelihood is normalised; its mean is its mean; what is none says so. And where its scale comes from."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate, optimize

from tests.configs import small_config
from vae_common.config import Config, DataConfig, LossConfig
from vae_common.config.likelihoods import LIKELIHOODS
from vae_common.config.parts import Reconstruction
from vae_common.errors import InputError

pytestmark = pytest.mark.quick

LOGITS = (-40.0, -3.0, -0.9, -1e-3, 0.0, 0.3, 2.0, 25.0)
GREY = np.arange(256) / 255


def nats(half, name, logit, pixels, log_scale=-1.0):
    """Of images of one pixel each."""
    pixels = np.asarray(pixels, np.float64).reshape(-1, 1, 1, 1)
    put = lambda a: half.to_device(np.asarray(a, np.float64), half.select_device("cpu"))  # noqa: E731
    with half.precision("float64"):
        scale = put(np.full((len(pixels), 1, 1, 1), log_scale))
        found = half.likelihoods.LIKELIHOODS[name](put(np.full(pixels.shape, logit)), put(pixels), scale)
    return half.to_numpy(found)


def mean(half, name, logit):
    with half.precision("float64"):
        put = half.to_device(np.array([logit]), half.select_device("cpu"))
        return float(half.to_numpy(half.pixel_means(put, name))[0])


@pytest.mark.parametrize("logit", LOGITS)
def test_bernoulli_sums_to_one(half, logit):
    assert np.exp(-nats(half, "bernoulli", logit, [0, 1])).sum() == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("log_scale", [-7.0, -3.0, 0.0, 4.0])
@pytest.mark.parametrize("logit", LOGITS)
def test_discretized_logistic_sums_to_one(half, logit, log_scale):
    """Over all 256 values, narrow, wide, and far out in a tail."""
    assert np.exp(-nats(half, "discretized_logistic", logit, GREY, log_scale)).sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_integrates_to_one_and_has_its_mean(half, logit):
    points, weights = np.polynomial.legendre.leggauss(200)
    x, w = (points + 1) / 2, weights / 2
    density = np.exp(-nats(half, "continuous_bernoulli", logit, x))
    assert w @ density == pytest.approx(1, abs=1e-12)
    assert mean(half, "continuous_bernoulli", logit) == pytest.approx(w @ (x * density), abs=1e-12)


@pytest.mark.parametrize("name", ["gaussian", "learned_gaussian"])
@pytest.mark.parametrize("log_scale", [-3.0, 0.0])
def test_gaussian_integrates_to_one(half, name, log_scale):
    def density(x):
        return np.exp(-nats(half, name, 0.3, [x], log_scale)[0])

    middle, reach = mean(half, name, 0.3), 12 * np.exp(log_scale)
    whole, _ = integrate.quad(density, middle - reach, middle + reach, epsabs=1e-12)
    assert whole == pytest.approx(1, abs=1e-9)


def test_optimal_gaussian_is_the_best_fixed_one(half):
    rng = np.random.default_rng(0)
    logits, images = rng.normal(size=(1, 4, 3, 1)), rng.random((1, 4, 3, 1))
    put = lambda a: half.to_device(a, half.select_device("cpu"))  # noqa: E731

    def at(log_scale, name="gaussian"):
        with half.precision("float64"):
            scale = put(np.full((1, 1, 1, 1), float(log_scale)))
            found = half.likelihoods.LIKELIHOODS[name](put(logits), put(images), scale)
        return float(half.to_numpy(found)[0])

    best = optimize.minimize_scalar(at, bounds=(-5, 3), method="bounded", options={"xatol": 1e-10})
    assert at(0, "optimal_gaussian") == pytest.approx(best.fun, rel=1e-12)


def test_every_reconstruction_is_labelled():
    """With a unit, and never as a likelihood where it is none."""
    for name in Reconstruction.__args__:
        for binarization in ("none", "static"):
            config = Config(loss=LossConfig(reconstruction=name), data=DataConfig(binarization=binarization))
            unit = config.reconstruction_unit
            assert "nats" in unit
            assert (binarization == "static") == ("static" in unit)
            none = name in ("squared_error", "optimal_gaussian") or (name, binarization) == ("bernoulli", "none")
            assert config.is_likelihood != none
            assert none == any(said in unit for said in ("not a likelihood", "less its constant", "not one"))


def test_every_half_has_the_formulas_of_the_table(half):
    """A row without a formula, or a formula without a row, is noticed here."""
    assert half.likelihoods.LIKELIHOODS.keys() == LIKELIHOODS.keys() == set(Reconstruction.__args__)


def test_a_learned_scale_is_learned(half, small):
    """It starts at exp(-2) and moves towards what is left to explain."""
    config = small_config("ae", loss=LossConfig(reconstruction="learned_gaussian"))
    config = replace(config, training=replace(config.training, epochs=40, learning_rate=3e-3))
    state = half.create_state(config)
    assert half.to_arrays(state.model)["decoder.log_scale"] == [-2.0]
    state = half.fit(state, small)
    errors = small.train.images / 255 - half.reconstruct(state.model, small.train.images)
    assert half.to_arrays(state.model)["decoder.log_scale"][0] == pytest.approx(np.log(errors.std()), abs=0.1)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ({"objective": "iwae", "reconstruction": "optimal_gaussian"}, "a likelihood: its sigma depends on the image"),
        ({"objective": "iwae", "beta": 2.0}, "beta: received 2.0, expected 1.0: objective iwae does not have it"),
        ({"objective": "dreg", "kl": "tutorial"}, "kl tutorial beside dreg"),
        ({"sigma": 0.0}, "sigma: received 0.0, expected a number above 0"),
        ({"samples": 0}, "samples: received 0"),
    ],
)
def test_what_does_not_go_together_is_refused(loss, said):
    with pytest.raises(InputError, match=said):
        Config(loss=LossConfig(**loss))
