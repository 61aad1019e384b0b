"""Faults in the parts that a config turns on, each with the tier that has to notice it (see faults.py)."""

from __future__ import annotations

import math

from tests.conformance.model_faults import reconstruction
from tests.conformance.planting import Fault
from vae_common.conformance.engine.faults import everywhere
from vae_common.contracts import Posterior

IWAE = {"options": {"loss": {"objective": "iwae", "samples": 3}}}
AVERAGED_CODEBOOK = {
    "model": "vq_vae", "codebook_update": "moving_average", "codebook_decay": 0.5, "restart_below": 0.6,
}  # fmt: skip
DREG = {"options": {"loss": {"objective": "dreg", "samples": 3}}}


def replaced(module, name, change):
    """A function of one of the half's modules in place of another: `change(original, functions)`."""

    def plant(half, f):
        owner = getattr(half, module)
        return [(owner, name, change(getattr(owner, name), f))]

    return plant


def without_prior(half, f):
    original = half.losses.log_ratio

    def log_ratio(outputs):
        return original(outputs._replace(layers=tuple(layer._replace(prior=None) for layer in outputs.layers)))

    return everywhere(half, "log_ratio", log_ratio)


def next_label(half, f):
    layers = half.layers
    original = layers.with_labels

    def with_labels(features, labels, classes):
        return original(features, (labels + 1) % classes if classes else labels, classes)

    return [(layers, "with_labels", with_labels)]


def moved(name):
    """A convolution of images that lie one row further down."""

    def plant(half, f):
        layers = half.layers
        original = getattr(layers, name)
        down = lambda x: f.roll(x.swapaxes(0, 1)).swapaxes(0, 1)  # noqa: E731
        return [(layers, name, lambda x, layer, products: original(down(x), layer, products))]

    return plant


def log_variance_taken_as_log_std(half, f):
    return [(half.layers.Autoencoder, "gaussian", lambda self, mean, scale: Posterior(mean, scale))]


def not_straight_through(half, f):
    def forward(self, images, noise, labels=None):
        codes = self.quantize(*self.encoder(images, labels))
        return self.outputs(codes.vectors, labels, codes=codes)

    return [(half.models.CLASSES["VQVAE"], f.call, forward)]


def without_commitment(half, f):
    model = half.models.CLASSES["VQVAE"]
    original = model.quantize

    def quantize(self, code):
        codes = original(self, code)
        return codes._replace(penalty=((f.detach(codes.inputs) - codes.vectors) ** 2).sum(-1))

    return [(model, "quantize", quantize)]


def left_to_adam(half, f):
    return everywhere(half, "set_apart", lambda gradients, names: (gradients, None if f.jax else {}))


def without_restarts(half, f):
    original = half.quantizers.moved
    return [(half.models.vq_vae, "moved", lambda *arguments: original(*arguments[:-1], 0.0))]


def shifted_by_tangent(half, f):
    def bounds(level):
        distance, offset, _ = original(level)
        return distance, offset, math.tan(offset / distance)

    original = half.quantizers._bounds
    return [(half.quantizers, "_bounds", bounds)]


def best_sigma_of_the_batch(optimal, f):
    def nats(logits, images, log_scale):
        squares = (images - f.sigmoid(logits)) ** 2
        each, best = squares.mean((-3, -2, -1)), squares.mean()
        return math.prod(images.shape[-3:]) * (each / best + f.log(2 * math.pi * best)) / 2

    return nats


def next_rate(half, f):
    original = half.optimizers.learning_rate
    return everywhere(half, "learning_rate", lambda config, step: original(config, step + 1))


def _iwae(f):
    def gradient(batch, log_weights):
        weights = f.exp(f.detach(log_weights - log_weights.max()))
        return -(weights / weights.sum(1)[:, None] * log_weights).sum() / len(batch.images)

    return gradient


OPTION_FAULTS = [
    Fault("IWAE without the logarithm of k", "T2", replaced("objectives", "math", lambda m, f: _Log()), IWAE),
    Fault("importance weights not in log p(z)", "T2", without_prior, {"model": "two_layer_vae"}),
    Fault(
        "DReG with IWAE's own gradient",
        "T3",
        replaced("objectives", "_doubly_reparameterised", lambda d, f: _iwae(f)),
        DREG,
    ),
    Fault(
        "free bits per image",
        "T2",
        replaced("objectives", "exact_kls", lambda kls, f: lambda layer: f.clip(kls(layer), 0.1, 1e9)),
        {"options": {"loss": {"free_bits": 0.1}}},
    ),
    Fault(
        "KL warm-up one step late",
        "T2",
        replaced("objectives", "_kl_weight", lambda w, f: lambda loss, step, dtype: w(loss, step - 1, dtype)),
        {"options": {"loss": {"kl_warmup": 30}}},
    ),
    Fault(
        "codebook without its commitment",
        "T2",
        without_commitment,
        {"model": "vq_vae"},
    ),
    Fault("codebook left to Adam", "T4a", left_to_adam, AVERAGED_CODEBOOK),
    Fault("dead codes not restarted", "T3", without_restarts, AVERAGED_CODEBOOK),
    Fault(
        "finite scalars shifted by a tangent",
        "T2",
        shifted_by_tangent,
        {"model": "vq_vae", "levels": (4, 3, 2), "codes": 64},
    ),
    Fault("label off by one", "T2", next_label, {"options": {"network": {"classes": 4}}}),
    Fault("convolution one row off", "T2", moved("convolve"), {"image_shape": (6, 4, 3), "channels": (3,)}),
    Fault("deconvolution one row off", "T2", moved("deconvolve"), {"image_shape": (6, 4, 3), "channels": (3,)}),
    Fault("log variance taken for log sigma", "T2", log_variance_taken_as_log_std, {"posterior_head": "log_variance"}),
    Fault("quantizer not straight through", "T3", not_straight_through, {"model": "vq_vae"}),
    Fault(
        "best sigma of the batch",
        "T1",
        reconstruction("optimal_gaussian", best_sigma_of_the_batch),
        {"options": {"loss": {"reconstruction": "optimal_gaussian"}}},
    ),
    Fault(
        "logistic's outer bins as wide as the others",
        "T1",
        reconstruction("discretized_logistic", lambda r, f: lambda logits, x, s: r(logits, x + 1e-9 * (0.5 - x), s)),
        {"options": {"loss": {"reconstruction": "discretized_logistic"}}},
    ),
    Fault(
        "continuous Bernoulli without its normaliser",
        "T1",
        reconstruction("continuous_bernoulli", lambda r, f: lambda logits, x, s: (-logits * x).sum((-3, -2, -1))),
        {"options": {"loss": {"reconstruction": "continuous_bernoulli"}}},
    ),
    Fault(
        "learned variance for sigma",
        "T1",
        reconstruction("learned_gaussian", lambda r, f: lambda logits, x, s: r(logits, x, 2 * s)),
        {"options": {"loss": {"reconstruction": "learned_gaussian"}}},
    ),
    Fault(
        "gradients not clipped",
        "T4a",
        replaced("step", "clipped", lambda c, f: lambda config, gradients: gradients),
        {"options": {"optimizer": {"clip_norm": 0.5}}},
    ),
    Fault(
        "step size one step ahead",
        "T4a",
        next_rate,
        {"options": {"optimizer": {"schedule": "cosine", "decay_steps": 30}}},
    ),
    Fault(
        "average of the weights before the update",
        "T4b",
        replaced("step", "averaged", lambda a, f: lambda config, average, model: average),
        {"options": {"optimizer": {"average": 0.9}}},
    ),
]


class _Log:
    """The module `math` whose logarithms are 0."""

    @staticmethod
    def log(x):
        return 0.0
