"""What a training says of each epoch, and how it stops where a loss is not finite."""

from __future__ import annotations

from typing import Any

import numpy as np

from vae_common.configs import Config
from vae_common.contracts import Terms

EpochRecord = dict[str, Any]


class NonFiniteLoss(ArithmeticError):
    """A loss became infinite or NaN. `state` is the training state before that epoch."""

    def __init__(self, seed: int, epoch: int, step: int | None, term: str):
        where = f"epoch {epoch}" + (f", step {step}" if step else ", in the evaluation after it")
        super().__init__(f"the {term} of seed {seed} became infinite or NaN in {where}; try a smaller learning_rate")
        self.epoch, self.step = epoch, step
        self.state: Any = None


def epoch_record(
    epoch: int, config: Config, terms: Terms, split: str, evaluation: Terms, seconds: float
) -> EpochRecord:
    """One line of metrics.jsonl, per image; epochs count from 1.

    Args:
        terms: every step's means, float64 (steps,).
        evaluation: every held-out image's terms, float64 (N,).

    Raises:
        NonFiniteLoss: naming the first step, counted from 1, where a term is not finite.
    """
    for name, values in terms._asdict().items():
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise NonFiniteLoss(config.seed, epoch + 1, int(bad[0]) + 1, name)
    for name, values in evaluation._asdict().items():
        if not np.isfinite(values).all():
            raise NonFiniteLoss(config.seed, epoch + 1, None, name)
    steps = len(terms.total)
    return {
        "epoch": epoch + 1,
        "step": (epoch + 1) * steps,
        "train": mean_terms(terms),
        split: mean_terms(evaluation),
        "seconds": seconds,
        "images_per_second": steps * config.training.batch_size / seconds,
    }


def mean_terms(terms: Terms) -> dict[str, float]:
    """Means with their units in the keys, per image."""
    return {f"{name}_nats": float(np.mean(values)) for name, values in terms._asdict().items()}
