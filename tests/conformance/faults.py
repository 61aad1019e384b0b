"""Faults to plant in one half at run time, each with the tier that has to notice it.

A fault is a function that gets the half and its array functions, and returns what to put in place of
what: `{(object, attribute): replacement}`. Objects are modules, classes and dicts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from tests.conformance.adams import jax_adam, torch_adam
from vae_common.checkpoints import FIRST, SECOND, STEP
from vae_common.contracts import Outputs, Posterior, Terms

Patches = list[tuple[Any, str, Any]]


@dataclass(frozen=True)
class Fault:
    """What is wrong, how to plant it, and where it has to show."""

    name: str
    tier: str
    plant: Callable[[ModuleType, SimpleNamespace], Patches]
    config: dict[str, Any] = field(default_factory=dict)
    """Arguments of `tiny_config` that the fault needs."""


def functions(half: ModuleType) -> SimpleNamespace:
    """The array functions of a half's framework that the faults below are written with."""
    if half.__name__ == "jax_vae":
        import jax
        import jax.numpy as jnp

        detach, roll, call = jax.lax.stop_gradient, lambda x: jnp.roll(x, 1, 0), "__call__"
        return SimpleNamespace(
            exp=jnp.exp, log=jnp.log, sigmoid=jax.nn.sigmoid, clip=jnp.clip, tanh=jnp.tanh,
            detach=detach, roll=roll, call=call, jax=True,
        )  # fmt: skip
    import torch

    return SimpleNamespace(
        exp=torch.exp, log=torch.log, sigmoid=torch.sigmoid, clip=torch.clip, tanh=torch.tanh,
        detach=lambda x: x.detach(), roll=lambda x: torch.roll(x, 1, 0), call="forward", jax=False,
    )  # fmt: skip


@contextlib.contextmanager
def planted(fault: Fault, half: ModuleType) -> Iterator[None]:
    """The fault in that half while the block runs; compiled programs are forgotten before and after."""
    originals: Patches = []
    try:
        for owner, name, value in fault.plant(half, functions(half)):
            originals.append((owner, name, _get(owner, name)))
            _set(owner, name, value)
        forget_programs(half)
        yield
    finally:
        for owner, name, value in reversed(originals):
            _set(owner, name, value)
        forget_programs(half)


def forget_programs(half: ModuleType) -> None:
    """Makes jitted functions trace again; PyTorch's are eager."""
    for module in (half.training, half.inference):
        for value in vars(module).values():
            if hasattr(value, "clear_cache"):
                value.clear_cache()


def _get(owner: Any, name: str) -> Any:
    return owner[name] if isinstance(owner, dict) else getattr(owner, name)


def _set(owner: Any, name: str, value: Any) -> None:
    if isinstance(owner, dict):
        owner[name] = value
    else:
        setattr(owner, name, value)


def _everywhere(half: ModuleType, name: str, value: Any) -> Patches:
    """A public function replaced in every module that holds it."""
    modules = (half, half.training, half.inference, half.losses, half.models, half.parameters)
    return [(module, name, value) for module in modules if hasattr(module, name)]


def _kl(change):
    return lambda half, f: [(half.losses.KLS, "gaussian", change(half.losses.KLS["gaussian"], f))]


def _reconstruction(kind, change):
    def plant(half, f):
        table = half.losses.RECONSTRUCTIONS
        return [(table, kind, change(table[kind], f))]

    return plant


def _posterior(change):
    def plant(half, f):
        encode = half.VAE.encode
        return [(half.VAE, "encode", lambda self, images: change(encode(self, images)))]

    return plant


def _latents(change):
    """Another reparameterization: `change(posterior, noise, functions)` gives the latents."""

    def plant(half, f):
        def forward(self, images, noise):
            posterior = self.encode(images)
            latents = change(posterior, noise, f)
            return Outputs(self.decode(latents), posterior, latents)

        return [(half.VAE, f.call, forward)]

    return plant


def _terms(change):
    def plant(half, f):
        original = half.losses.loss_terms

        def loss_terms(loss, outputs, images):
            return change(original(loss, outputs, images), loss)

        return _everywhere(half, "loss_terms", loss_terms)

    return plant


def _adam(**faults):
    return lambda half, f: [(half.training, "_adam", (jax_adam if f.jax else torch_adam)(**faults))]


def _state_config(change):
    """The half trains under another config than it was given."""

    def plant(half, f):
        create, load = half.create_state, half.state_from_arrays
        return _everywhere(half, "create_state", lambda config: create(change(config))) + _everywhere(
            half, "state_from_arrays", lambda config, arrays: load(change(config), arrays)
        )

    return plant


def _draws(**changes):
    def plant(half, f):
        original = half.epoch_draws

        def epoch_draws(config, epoch, images):
            draws = original(config, epoch, images)
            return draws._replace(**{kind: change(getattr(draws, kind), f) for kind, change in changes.items()})

        return _everywhere(half, "epoch_draws", epoch_draws)

    return plant


def _stale(x, f):
    return x[[0] * len(x)] if not f.jax else x[np.zeros(len(x), int)]


def _resume(change):
    def plant(half, f):
        original = half.state_from_arrays

        def state_from_arrays(config, arrays):
            return original(config, {name: change(name, a) for name, a in arrays.items()})

        return _everywhere(half, "state_from_arrays", state_from_arrays)

    return plant


def _load(change):
    def plant(half, f):
        original = half.load_arrays

        def load_arrays(model, arrays, dtype, device):
            return original(model, {name: change(name, a) for name, a in arrays.items()}, dtype, device)

        return _everywhere(half, "load_arrays", load_arrays)

    return plant


def _prepare(change):
    def plant(half, f):
        original = half.prepare_images
        prepare = lambda images, thresholds, dtype: change(original, images, thresholds, dtype)  # noqa: E731
        return _everywhere(half, "prepare_images", prepare)

    return plant


def _reshaped(array):
    return np.ascontiguousarray(array.T).reshape(array.shape)


def _without_bias(half, f):
    decoder = half.models.networks.Decoder
    original = getattr(decoder, f.call)

    def forward(self, latents):
        return original(self, latents) - self.logits.bias.reshape(self.image_shape)

    return [(decoder, f.call, forward)]


def _channels_first(half, f):
    encoder = half.models.networks.Encoder
    original = getattr(encoder, f.call)
    axes = (0, 3, 1, 2)

    def forward(self, images):
        swapped = images.transpose(axes) if f.jax else images.permute(axes)
        return original(self, swapped)

    return [(encoder, f.call, forward)]


def _activation(name, function):
    return lambda half, f: [(half.models.networks.ACTIVATIONS, name, lambda x: function(x, f))]


def _means(posterior, noise, f):
    return posterior.mean + 0 * noise


def _evaluate_mean(half, f):
    original = half.evaluate
    from vae_common import randomness

    def evaluate(model, images, config):
        draw, randomness.evaluation_noise = randomness.evaluation_noise, lambda n, d: np.zeros((n, d))
        try:
            return original(model, images, config)
        finally:
            randomness.evaluation_noise = draw

    return _everywhere(half, "evaluate", evaluate)


def _drop_last(half, f):
    original = half.evaluate
    return _everywhere(
        half, "evaluate", lambda model, images, config: Terms(*(t[:-1] for t in original(model, images, config)))
    )


def _clipped(original, f):
    def bernoulli(logits, images):
        p = f.clip(f.sigmoid(logits), 1e-7, 1 - 1e-7)
        return -(images * f.log(p) + (1 - images) * f.log(1 - p)).sum((1, 2, 3))

    return bernoulli


def _weights_only(change):
    return lambda name, a: a if name.startswith("adam.") else change(a)


def _moments_only(prefix, change):
    return lambda name, a: change(a) if name.startswith(prefix) else a


FAULTS = [
    Fault("KL doubled", "T1", _kl(lambda kl, f: lambda m, s: 2 * kl(m, s))),
    Fault("KL halved", "T1", _kl(lambda kl, f: lambda m, s: kl(m, s) / 2)),
    Fault("KL without its constant", "T1", _kl(lambda kl, f: lambda m, s: kl(m, s) + m.shape[1] / 2)),
    Fault("KL with its sign turned", "T1", _kl(lambda kl, f: lambda m, s: -kl(m, s))),
    Fault("KL averaged over latents", "T1", _kl(lambda kl, f: lambda m, s: kl(m, s) / m.shape[1])),
    Fault("KL ignores the mean", "T3", _kl(lambda kl, f: lambda m, s: kl(f.detach(m), s))),
    Fault("beta ignored", "T1", _terms(lambda t, loss: t._replace(total=t.reconstruction + t.kl)), {"loss": "beta"}),
    Fault(
        "reconstruction averaged over pixels",
        "T1",
        _reconstruction("bernoulli", lambda r, f: lambda logits, x: r(logits, x) / logits[0].reshape(-1).shape[0]),
    ),
    Fault("reconstruction halved", "T1", _reconstruction("bernoulli", lambda r, f: lambda logits, x: r(logits, x) / 2)),
    Fault(
        "squared error halved",
        "T1",
        _reconstruction("squared_error", lambda r, f: lambda logits, x: r(logits, x) / 2),
        {"loss": "squared"},
    ),
    Fault(
        "loss summed over the batch", "T3", _state_config(lambda c: replace(c, loss=replace(c.loss, reduction="sum")))
    ),
    Fault("sigma = exp(2 head)", "T2", _posterior(lambda p: Posterior(p.mean, 2 * p.log_std))),
    Fault("sigma = exp(head / 2)", "T2", _posterior(lambda p: Posterior(p.mean, p.log_std / 2))),
    Fault("mean and log_std swapped", "T2", _posterior(lambda p: Posterior(p.log_std, p.mean))),
    Fault("variance in place of sigma", "T2", _latents(lambda p, n, f: p.mean + f.exp(2 * p.log_std) * n)),
    Fault("noise subtracted", "T2", _latents(lambda p, n, f: p.mean - f.exp(p.log_std) * n)),
    Fault("no noise", "T2", _latents(_means)),
    Fault("no gradient through sigma", "T3", _latents(lambda p, n, f: p.mean + f.detach(f.exp(p.log_std)) * n)),
    Fault("decoder without its last bias", "T2", _without_bias),
    Fault("pixels flattened channels first", "T2", _channels_first),
    Fault(
        "sigmoid applied twice",
        "T1",
        _reconstruction("bernoulli", lambda r, f: lambda logits, x: r(f.sigmoid(logits), x)),
    ),
    Fault("probabilities clipped at 1e-7", "T1", _reconstruction("bernoulli", _clipped)),
    Fault(
        "GELU approximated",
        "T1",
        _activation("gelu", lambda x, f: x / 2 * (1 + f.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))),
        {"activation": "gelu"},
    ),
    Fault(
        "softplus linear above 20",
        "T1",
        _activation("softplus", lambda x, f: f.log(1 + f.exp(f.clip(x, -60, 20))) + f.clip(x - 20, 0, 1e9)),
        {"activation": "softplus"},
    ),
    Fault("Adam eps 1e-7", "T4a", _adam(eps=1e-7)),
    Fault("Adam eps 0", "T4a", _adam(eps=0.0)),
    Fault("Adam eps inside the root", "T4a", _adam(eps_inside=True)),
    Fault("Adam beta1 0.95", "T4a", _adam(beta1=0.95)),
    Fault("Adam beta2 0.99", "T4a", _adam(beta2=0.99)),
    Fault("Adam without bias correction", "T4a", _adam(bias_correction=False)),
    Fault("learning rate x 1.001", "T4a", _adam(rate_scale=1.001)),
    Fault("stale noise", "T0", _draws(noise=_stale)),
    Fault("noise off by one step", "T0", _draws(noise=lambda x, f: f.roll(x))),
    Fault("batch order off by one step", "T0", _draws(order=lambda x, f: f.roll(x))),
    Fault("binarization off by one step", "T0", _draws(thresholds=lambda x, f: f.roll(x))),
    Fault("/256 for /255", "T1", _prepare(lambda o, x, t, d: o(x, t, d) * (255 / 256) if t is None else o(x, t, d))),
    Fault("threshold counted as above", "T1", _prepare(lambda o, x, t, d: o(x, t, d) if t is None else 1 - o(t, x, d))),
    Fault("weight reshaped instead of transposed", "T0", _load(lambda n, a: _reshaped(a) if a.ndim == 2 else a)),
    Fault("resume with the count reset", "T0", _resume(lambda n, a: 0 * a if n == STEP else a)),
    Fault("resume without the moments", "T0", _resume(lambda n, a: 0 * a if n.startswith((FIRST, SECOND)) else a)),
    Fault("resume with the second moment reshaped", "T0", _resume(_moments_only(SECOND, _reshaped))),
    Fault(
        "resume with weights rounded to float16",
        "T0",
        _resume(_weights_only(lambda a: a.astype(np.float16).astype(a.dtype))),
    ),
    Fault("weights of another initialiser", "T0", _load(lambda n, a: 3**0.5 * a)),
    Fault("evaluation at the mean", "T2", _evaluate_mean),
    Fault("evaluation without the last image", "T2", _drop_last),
]
