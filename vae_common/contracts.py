"""The named tuples that pass between models, losses and training, in either framework.

Every array has the batch first. Where a training step draws several posterior samples, `samples` comes next: an
optional axis of latents, logits, and whatever is computed from them. Inside a forward pass latents are flat, (..., n);
`encode` and `decode` show them in the model's own shape. An entry is None where a model has no such thing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol


class Posterior(NamedTuple):
    """N(mean, exp(log_std)^2); a code that is no distribution has `log_std` None."""

    mean: Any
    """Shape (batch, *latent_shape)."""
    log_std: Any
    """Shape (batch, *latent_shape), or None."""


class Prior(Protocol):
    """A distribution of a layer's latents, its parameters with a batch axis or without: a named tuple of arrays.

    Where the KL of a Gaussian to it is known it also has `exact_kls(posterior)`: nats per latent, of the posterior's
    shape.
    """

    def log_density(self, latents: Any) -> Any:
        """In nats, of latents (batch[, samples], n), summed over them: (batch[, samples])."""

    def sample(self, noise: Any) -> Any:
        """Latents (batch[, samples], n) made of standard-normal noise (batch[, samples], its number)."""


class StochasticLayer(NamedTuple):
    """Latents that a forward pass drew: z = mean + sigma * noise."""

    posterior: Posterior
    """q(z | what the layer reads), flat, (batch[, samples], n)."""
    prior: Prior | None
    """p(z | the layers above); None is the standard normal."""
    latents: Any
    """Shape (batch[, samples], n)."""
    noise: Any
    """What they were made of, of the same shape."""


class Codes(NamedTuple):
    """What a quantizer made of an encoder's output: one code for each of its places."""

    inputs: Any
    """What was replaced, (batch, n): the encoder's output, or what bounded it."""
    vectors: Any
    """What it was replaced by, side by side, (batch, n)."""
    indices: Any
    """Which of all codes they are, (batch, places), integers."""
    nats: Any
    """KL of the choice to a uniform prior over all codes, (batch,): a constant."""
    penalty: Any
    """What training adds to the loss, (batch,): the codebook's and the encoder's pull on each other."""


class Outputs(NamedTuple):
    """What a forward pass computes."""

    logits: Any
    """Shape (batch[, samples], height, width, channels)."""
    latents: Any
    """Shape (batch[, samples], n): the sample or the code that was decoded."""
    layers: tuple[StochasticLayer, ...] = ()
    """Everything that was drawn, in the order of the noise."""
    log_scale: Any = None
    """Logarithm of the likelihood's scale where the decoder learns it, (batch[, samples], 1, 1, 1)."""
    codes: Codes | None = None


class Terms(NamedTuple):
    """The loss and its parts, per example (batch,), or averaged (). The KL is positive (estimated, on average)."""

    total: Any
    """Reconstruction + beta * KL, whatever is optimised."""
    reconstruction: Any
    kl: Any
    objective: Any = None
    """What training minimised, of a batch: a number of its own for every objective."""
    more: Mapping[str, Any] | None = None
    """Named terms of a model or an objective, each with its unit in its name: `total_correlation_nats`."""

    def named(self) -> dict[str, Any]:
        """Every term that is there, by its name."""
        found = {"total": self.total, "reconstruction": self.reconstruction, "kl": self.kl}
        if self.objective is not None:
            found["objective"] = self.objective
        return found | dict(self.more or {})

    @classmethod
    def of(cls, named: Mapping[str, Any]) -> Terms:
        """The inverse of `named`."""
        own = {name: named[name] for name in cls._fields if name in named}
        return cls(**own, more={name: term for name, term in named.items() if name not in own} or None)


def layer_term(place: int) -> str:
    """The name of the KL of the stochastic layer at that place, from 1, where there are several."""
    return f"kl_layer_{place}_nats"


def kl_of_layers(terms: Terms) -> list[Any]:
    """The KL of each of several stochastic layers, in their order."""
    found, place = [], 1
    while layer_term(place) in (terms.more or {}):
        found.append((terms.more or {})[layer_term(place)])
        place += 1
    return found


CODE_TERMS = ("codes_used", "codebook_perplexity")
"""Terms of a batch's codes: how many of them it used, and the exponential of the entropy of that use."""
NAMES = ("total", "reconstruction", "kl")
"""The terms that every model and objective has."""


def per_draw(array: Any, draws: Any) -> Any:
    """An array (batch, ...) as it broadcasts to what has, or has not, an axis of draws after the batch's.

    One of a single axis belongs to no image, as a prior's parameters may: it broadcasts as it is.
    """
    return array[:, None] if 1 < array.ndim < draws.ndim else array


def map_arrays(function: Callable[..., Any], *trees: Any) -> Any:
    """The function of each array of nested tuples and mappings alike; None stays None."""
    first = trees[0]
    if first is None:
        return None
    if isinstance(first, Mapping):
        return {name: map_arrays(function, *(tree[name] for tree in trees)) for name in first}
    if not isinstance(first, tuple):
        return function(*trees)
    parts = [map_arrays(function, *parts) for parts in zip(*trees)]
    return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
