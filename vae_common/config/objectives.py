"""What is known of each objective beside its formula: one row for each.

The formulas are in both halves' `objectives.py` and in `vae_common/reference/objectives.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from vae_common.config.checks import Rate


class Refusal(NamedTuple):
    """What does not go together."""

    asked: bool
    """Whether it is asked for."""
    received: str
    expected: str


Refusals = Callable[[Any], Iterator[Refusal]]
"""Of an experiment's `Config`."""


def nothing_refused(config: Any) -> Iterator[Refusal]:
    """Of what goes with everything."""
    yield from ()


@dataclass(frozen=True)
class Objective:
    """The facts that configs, records and figures go by."""

    unit: str
    """What one unit of its value is."""
    bounds: Callable[[Any], bool] = lambda loss: False
    """Whether, with these settings of the loss, its value bounds the negative log-likelihood from above."""
    of_draws: bool = True
    """Whether it is one of models that draw their latents alone."""
    reads: tuple[str, ...] = ()
    """The loss's fields that it goes by and not every objective."""
    fields: type | None = None
    """A frozen dataclass of fields that it adds to the loss's config."""
    terms: tuple[str, ...] = ()
    """The named terms that it reports beside the loss's own, each with its unit in its name."""
    set_size: bool = False
    """Whether it is given the number of training images."""
    refuses: Refusals = nothing_refused
    """What else it does not go with."""

    @property
    def own_fields(self) -> tuple[str, ...]:
        """The fields that it has and not every objective."""
        brought = tuple(field.name for field in dataclasses.fields(self.fields)) if self.fields else ()
        return (*brought, *self.reads)


def _importance_weighted(config: Any) -> Iterator[Refusal]:
    name = config.loss.objective
    yield Refusal(config.loss.kl == "tutorial", f"kl tutorial beside {name}", "gaussian: importance weights have no KL")
    yield Refusal(
        config.loss.likelihood.scale_of_each_image,
        f"reconstruction {config.loss.reconstruction} beside {name}",
        "a likelihood: its sigma depends on the image, so importance weights mean nothing",
    )


def _doubly_reparameterised(config: Any) -> Iterator[Refusal]:
    yield from _importance_weighted(config)
    yield Refusal(
        len(config.layer_shapes) > 1,
        "objective dreg",
        "iwae or elbo: the doubly reparameterised gradient is made for one stochastic layer",
    )


def _decomposed(config: Any) -> Iterator[Refusal]:
    one_normal = config.entry.standard_prior and len(config.layer_shapes) == 1
    yield Refusal(
        not one_normal,
        f"objective {config.loss.objective}",
        "another: the KL is taken apart for one layer with a standard-normal prior",
    )
    yield Refusal(config.loss.samples > 1, f"samples {config.loss.samples}", "1: it takes one draw an image")


@dataclass(frozen=True)
class BetaTCFields:
    """What the parts of the KL weigh."""

    mi_weight: Rate = 1.0
    """beta_tc: weight of the mutual information between image and latents."""
    tc_weight: Rate = 6.0
    """beta_tc: weight of the latents' total correlation."""
    dimension_weight: Rate = 1.0
    """beta_tc: weight of the KL of each latent's aggregate posterior to its prior."""


OBJECTIVES: dict[str, Objective] = {
    "elbo": Objective(
        "nats of reconstruction and KL, as they are weighted at that step",
        bounds=lambda loss: loss.beta == 1 and loss.kl != "tutorial" and not loss.free_bits,
        of_draws=False,
        reads=("beta", "kl_warmup", "free_bits"),
    ),
    "iwae": Objective("nats", bounds=lambda loss: True, refuses=_importance_weighted),
    "dreg": Objective("nats", bounds=lambda loss: True, refuses=_doubly_reparameterised),
    "beta_tc": Objective(
        "nats of reconstruction and of the KL's three parts, weighted",
        fields=BetaTCFields,
        terms=("mutual_information_nats", "total_correlation_nats", "dimension_wise_kl_nats"),
        set_size=True,
        refuses=_decomposed,
    ),
}
