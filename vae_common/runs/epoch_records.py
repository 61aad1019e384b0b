"""What a training says of each epoch, and how it stops where a loss is not finite."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from vae_common.config import Config
from vae_common.contracts import NAMES, Terms

EpochRecord = dict[str, Any]
TERMS = tuple(f"{name}_nats" for name in NAMES)
"""The loss's terms that every record has, as records name them."""
FAR_OUT = 1e4
"""Weights of terms beyond this are what most likely overflowed."""


class Spent(NamedTuple):
    """The time that an epoch took."""

    seconds: float
    """Of its steps."""
    steps: int
    """That took them: not all, where the epoch was gone on with."""
    waited: float
    """Seconds before the first step could be taken: for its random numbers, or a stream's first images."""


class NonFiniteLoss(ArithmeticError):
    """A loss, or a number of the training state, became infinite or NaN. `state` is the one before that epoch."""

    def __init__(self, config: Config, epoch: int, step: int | None, what: str):
        where = f"epoch {epoch}" + (f", step {step}" if step else ", or in the evaluation after it")
        said = f"the {what} of seed {config.seed} became infinite or NaN in {where}"
        super().__init__(f"{said}; try {_mend(config)}")
        self.epoch, self.step = epoch, step
        self.state: Any = None


def _mend(config: Config) -> str:
    """What most likely helps: whichever setting is far out, else a smaller step size."""
    loss, rate = config.loss, config.training.learning_rate
    if max(loss.beta, loss.commitment, loss.free_bits) > FAR_OUT:
        name = max(("beta", "commitment", "free_bits"), key=lambda field: getattr(loss, field))
        return f"a smaller {name} than {getattr(loss, name):g}"
    if config.optimizer.eps < 1 / FAR_OUT**3:
        return f"a larger eps than {config.optimizer.eps:g}"
    if loss.reconstruction == "gaussian" and loss.sigma < 1 / FAR_OUT:
        return f"a larger sigma than {loss.sigma:g}"
    return f"a smaller learning_rate than {rate:g}, or clip_norm"


def epoch_record(
    epoch: int,
    config: Config,
    terms: Terms,
    split: str,
    evaluation: Terms,
    spent: Spent,
    lost: str | None = None,
) -> EpochRecord:
    """One line of metrics.jsonl, per image; epochs count from 1.

    Args:
        terms: every step's means, float64 (steps,).
        evaluation: every held-out image's terms, float64 (N,).
        lost: what of the state after the epoch is not finite, if anything: an infinite second moment stands still
            without a word.

    Raises:
        NonFiniteLoss: naming the first step, counted from 1, where a term is not finite.
    """
    for name, values in terms.named().items():
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise NonFiniteLoss(config, epoch + 1, int(bad[0]) + 1, name)
    for name, values in evaluation.named().items():
        if not np.isfinite(values).all():
            raise NonFiniteLoss(config, epoch + 1, None, name)
    if lost:
        raise NonFiniteLoss(config, epoch + 1, None, lost)
    steps = len(terms.total)
    return {
        "epoch": epoch + 1,
        "step": (epoch + 1) * steps,
        "train": mean_terms(terms),
        split: mean_terms(evaluation),
        "seconds": spent.seconds,
        "waited_seconds": spent.waited,
        "images_per_second": spent.steps * config.training.batch_size / spent.seconds,
    }


def mean_terms(terms: Terms) -> dict[str, float]:
    """Means with their units in the keys, per image."""
    found = {name: float(np.mean(values)) for name, values in terms.named().items()}
    return {name if name in (terms.more or {}) else f"{name}_nats": value for name, value in found.items()}
