"""Both halves' forward pass, losses and gradients against the same maths by hand in NumPy."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate, stats

from tests.configs import SMALL_NETWORK, own_fields, small_config
from tests.conftest import random_batch
from vae_common import randomness, reference
from vae_common.config import Config, LossConfig, NetworkConfig
from vae_common.contracts import Outputs, Posterior, StochasticLayer, map_arrays
from vae_common.errors import InputError
from vae_common.reference.model import ORACLES

pytestmark = pytest.mark.quick

LOSSES = [
    LossConfig(),
    LossConfig(beta=4.0),
    LossConfig(reconstruction="squared_error"),
    LossConfig(reconstruction="squared_error", kl="tutorial", reduction="sum"),
]


def possible(model, loss):
    try:
        return Config(model, loss=loss)
    except InputError:
        return None


PAIRS = [(model, loss) for model in ORACLES for loss in LOSSES if possible(model, loss)]
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}


def initial(config):
    return randomness.initial_weights(reference.shapes(config), 1, starts=reference.starts(config))


def relative(a, b) -> float:
    """Largest difference in units of the reference's largest value; NaN and other shapes fail."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape
    assert a.size
    assert np.isfinite(a).all()
    return float(np.abs(a - b).max() / (np.abs(b).max() or 1))


def outputs_of(half, config, weights, images, noise) -> tuple:
    """The half's outputs and terms in NumPy, at the given weights."""
    dtype = config.training.dtype
    model = half.load_arrays(half.create_model(config), weights, dtype, half.select_device())
    with half.precision(dtype):
        images, noise = (as_tensor(half, a.astype(dtype)) for a in (images, noise))
        outputs = model(images, noise)
        terms = half.loss_terms(config.loss, outputs, images)
    return outputs, terms


def as_tensor(half, array):
    if half.__name__ == "torch_vae":
        import torch

        return torch.tensor(array)
    import jax.numpy as jnp

    return jnp.asarray(array)


def numpy(value) -> np.ndarray:
    return np.asarray(value.detach() if hasattr(value, "detach") else value)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("model", "loss"), PAIRS, ids=str)
def test_forward_and_terms(half, model, loss, dtype):
    config = small_config(model, dtype, loss=loss)
    weights = initial(config)
    images, noise = random_batch(config)
    outputs, terms = outputs_of(half, config, weights, images, noise)
    expected = reference.forward(config, weights, images, noise)
    expected_terms = reference.loss_terms(loss, expected, images)
    found, named = terms.named(), expected_terms.named()
    assert found.keys() == named.keys()
    pairs = [(outputs.logits, expected.logits), (outputs.latents, expected.latents)]
    pairs += [(found[name], named[name]) for name in found]
    pairs += [pair for a, b in zip(outputs.layers, expected.layers) for pair in zip(a.posterior, b.posterior)]
    for a, b in pairs:
        assert numpy(a).dtype == dtype
        assert relative(numpy(a), b) < TOLERANCE[dtype]


@pytest.mark.parametrize("activation", ["relu", "tanh", "softplus", "gelu", "silu"])
@pytest.mark.parametrize("hidden", [(), (16,), (17, 9, 16)])
def test_any_depth_and_activation(half, activation, hidden):
    config = small_config(network=NetworkConfig(hidden=hidden, latent_dim=4, activation=activation))
    weights = {k: 20 * w for k, w in initial(config).items()}
    weights["encoder.log_std.weight"] = 0 * weights["encoder.log_std.weight"]
    images, noise = random_batch(config)
    outputs, _ = outputs_of(half, config, weights, images, noise)
    assert relative(numpy(outputs.logits), reference.forward(config, weights, images, noise).logits) < 1e-12


@pytest.mark.parametrize("logit", [-100.0, -1.0, 0.0, 100.0])
def test_terms_at_saturated_logits(half, logit):
    images = np.array([0.0, 0.3, 1.0]).reshape(3, 1, 1, 1)
    zeros = np.zeros((3, 2))
    layer = StochasticLayer(Posterior(zeros, zeros), None, zeros, zeros)
    outputs = Outputs(np.full((3, 1, 1, 1), logit), zeros, (layer,))
    for loss in LOSSES:
        with half.precision("float64"):
            tensors = map_arrays(lambda array: as_tensor(half, array), outputs)
            terms = half.loss_terms(loss, tensors, as_tensor(half, images)).named()
        expected = reference.loss_terms(loss, outputs, images).named()
        for a, b in zip(terms.values(), expected.values()):
            np.testing.assert_allclose(numpy(a), b, rtol=1e-13, atol=1e-40)


def test_kl_is_the_kl():
    """Against quadrature; the tutorial's formula is another number."""
    mean, log_std = 0.7, -0.4
    posterior, prior = stats.norm(mean, np.exp(log_std)), stats.norm()
    exact, _ = integrate.quad(lambda z: posterior.pdf(z) * (posterior.logpdf(z) - prior.logpdf(z)), -12, 12)
    drawn = np.zeros((1, 1))
    layer = StochasticLayer(Posterior(np.array([[mean]]), np.array([[log_std]])), None, drawn, drawn)
    outputs = Outputs(np.zeros((1, 1, 1, 1)), drawn, (layer,))
    kl = reference.loss_terms(LossConfig(), outputs, np.zeros((1, 1, 1, 1))).kl
    tutorial = reference.loss_terms(LossConfig(kl="tutorial"), outputs, np.zeros((1, 1, 1, 1))).kl
    assert kl[0] == pytest.approx(exact, rel=1e-9)
    assert abs(tutorial[0] - exact) > 0.1


@pytest.mark.parametrize(("model", "loss"), PAIRS, ids=str)
@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
def test_reference_gradients_are_the_slope(model, loss, activation):
    """Against central differences; before a quantizer the straight-through gradient is another thing by design."""
    tiny = SMALL_NETWORK | {"hidden": (6, 5), "latent_dim": 2, "activation": activation, "block_channels": (4,)}
    network = NetworkConfig(**own_fields(model, tiny))
    config = replace(small_config(model, loss=loss), image_shape=(3, 2, 1), network=network)
    weights = initial(config)
    images, noise = random_batch(config)
    gradients = reference.gradients(config, weights, images, noise)

    def batch_loss(changed):
        total = reference.loss_terms(loss, reference.forward(config, changed, images, noise), images).total
        return total.mean() if loss.reduction == "mean" else total.sum()

    rng = np.random.default_rng(0)
    behind = "decoder." if model == "vq_vae" else ""
    for name, weight in weights.items():
        if not name.startswith(behind):
            continue
        direction = rng.standard_normal(weight.shape)
        slope = [batch_loss(weights | {name: weight + s * 1e-6 * direction}) for s in (1, -1)]
        assert (slope[0] - slope[1]) / 2e-6 == pytest.approx((gradients[name] * direction).sum(), rel=1e-5, abs=1e-6)
