"""Who the halves are held against: the reference, or, for a model that it does not know, one of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from vae_common import reference
from vae_common.backend import Half, Halves
from vae_common.config import Config
from vae_common.contracts import Terms, map_arrays
from vae_common.randomness import Start
from vae_common.runs.checkpoints import AVERAGE, FIRST, SECOND, STEP, Arrays


class TermsAndGradients(Protocol):
    """A batch's mean terms and gradients, in float64 NumPy."""

    def __call__(
        self, config: Config, weights: Arrays, images: Any, noise: Any, labels: Any, step: int
    ) -> tuple[Terms, Arrays]: ...


class Oracle(NamedTuple):
    """Someone who computes a step, to train with and to compare with."""

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    """Canonical name -> canonical shape of every parameter."""
    starts: Mapping[str, Start]
    """How the parameters begin that belong to no layer."""
    terms_and_gradients: TermsAndGradients


def oracle_for(halves: Halves, config: Config) -> Oracle:
    """The reference where it knows the model, else the first half, step by step."""
    if reference.knows(config):
        return Oracle("reference", reference.shapes(config), reference.starts(config), reference.terms_and_gradients)
    name, half = next(iter(halves.items()))
    model = half.create_model(config)
    gradients = partial(_terms_and_gradients, half)
    return Oracle(name, half.parameter_shapes(model), half.parameter_starts(model), gradients)


def inject(half: Half, config: Config, arrays: Arrays) -> Any:
    """A half's training state with these canonical arrays, in the config's dtype."""
    typed = {name: a if name == STEP else a.astype(config.training.dtype) for name, a in arrays.items()}
    return half.state_from_arrays(config, typed)


def _terms_and_gradients(
    half: Half, config: Config, weights: Arrays, images: Any, noise: Any, labels: Any, step: int
) -> tuple[Terms, Arrays]:
    moments = {prefix + name: 0 * weight for prefix in (FIRST, SECOND) for name, weight in weights.items()}
    averages = {AVERAGE + name: weight for name, weight in weights.items()} if config.optimizer.average else {}
    arrays = dict(weights) | moments | averages
    state = inject(half, config, arrays | {STEP: np.array(step, np.int64)})
    gradients, terms = half.gradients(state, np.asarray(images, float), np.asarray(noise), labels)
    numbers = map_arrays(lambda term: np.float64(half.to_numpy(term)), terms)
    return numbers, {name: gradients[name].astype(np.float64) for name in weights}
