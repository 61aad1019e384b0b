"""Metrics of one set of latents: what it says of its images' classes and neighbours, and of its prior.

A metric is one function here, under `@_described` with what is known of it: records, reports, margins and the tests
take it from there. Latents are arrays (N, n), one row per image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from sklearn.manifold import trustworthiness as sklearn_trustworthiness
from sklearn.metrics import silhouette_score
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from vae_common.metrics import table
from vae_common.metrics.table import Margin, Metric
from vae_common.randomness import some_rows

METRICS = table.METRICS
"""Every metric, those of one set included once this module is read."""
ACTIVE_VARIANCE = 0.01


class Latents(NamedTuple):
    """What is described."""

    mean: np.ndarray
    """Shape (N, n), float64."""
    log_std: np.ndarray | None
    """Of the posterior, (N, n); None where nothing is drawn."""
    labels: np.ndarray
    """Integers (N,); -1 for none."""
    images: np.ndarray
    standard_prior: bool
    """Whether the latents are standard normal under the prior."""

    @property
    def classified(self) -> bool:
        """Whether there are classes to find again."""
        _, sizes = np.unique(self.labels, return_counts=True)
        return bool(self.labels.min() >= 0 and len(self.mean) >= 20 and len(sizes) > 1 and sizes.max() >= 5)


Given = Callable[[Latents], tuple[Any, ...] | None]
"""A metric's arguments, or None where it is not defined."""
DESCRIPTORS: dict[str, tuple[Callable[..., float], Given]] = {}
"""By name, every metric of one set, and what it is given."""
F = TypeVar("F", bound=Callable[..., float])


def _described(title: str, says: str, margin: Margin | None, given: Given, unit: str = "") -> Callable[[F], F]:
    """Adds a metric.

    Args:
        title: its name where people read it.
        says: what its values mean, in a line.
        margin: what its means over seeds may differ by between two programs; None claims nothing of it.
    """

    def add(function: F) -> F:
        name = function.__name__ + unit
        METRICS[name] = Metric(says, title, margin)
        DESCRIPTORS[name] = function, given
        return function

    return add


@_described(
    "trustworthiness",
    "1: neighbours in the latent space are neighbours in pixels",
    Margin(False, 0.025),
    lambda of: (of.images, of.mean) if len(of.mean) > 20 else None,
)
def trustworthiness(images: np.ndarray, latents: np.ndarray, k: int = 10) -> float:
    """Share of latent neighbours that are neighbours in pixels too, 0 to 1 (Venna and Kaski 2001)."""
    return float(sklearn_trustworthiness(images.reshape(len(images), -1), latents, n_neighbors=k))


@_described(
    "k-NN accuracy",
    "accuracy of naming the class by the 10 nearest latents",
    Margin(False, 0.05),
    lambda of: (of.mean, of.labels) if of.classified else None,
)
def knn_accuracy(latents: np.ndarray, labels: np.ndarray, k: int = 10) -> float:
    """Five-fold cross-validated accuracy of a k-nearest-neighbour classifier of the labels, 0 to 1.

    Needs at least 20 rows, and a class with at least 5.
    """
    return float(cross_val_score(KNeighborsClassifier(k), latents, labels, cv=5).mean())


@_described(
    "silhouette",
    "1: classes far apart; 0: they touch; below: they lie within each other",
    Margin(False),
    lambda of: (of.mean, of.labels) if of.classified else None,
)
def silhouette(latents: np.ndarray, labels: np.ndarray) -> float:
    """Mean silhouette of the classes, -1 to 1: how far apart they lie against their own spread."""
    return float(silhouette_score(latents, labels))


@_described(
    "active units",
    "latent dimensions whose mean varies by more than 0.01",
    Margin(False, 0.5),
    lambda of: None if of.log_std is None else (of.mean,),
)
def active_units(mean: np.ndarray) -> int:
    """Latent dimensions whose posterior mean varies by more than 0.01 (Burda et al. 2016)."""
    return int((mean.var(0) > ACTIVE_VARIANCE).sum())


@_described(
    "aggregate posterior KL",
    "nats between all posteriors together and N(0, I); 0: the prior is met",
    Margin(True),
    lambda of: (of.mean, of.log_std) if of.log_std is not None and of.standard_prior else None,
    unit="_nats",
)
def aggregate_posterior_kl(mean: np.ndarray, log_std: np.ndarray) -> float:
    """KL to N(0, I), in nats, of the Gaussian with the aggregate posterior's mean and covariance.

    The covariance is that of the means plus the average posterior variance, so unlike every other
    metric here it sees the posterior's scale. Of a standard-normal prior alone.
    """
    covariance = np.cov(mean.T, bias=True).reshape(mean.shape[1], -1) + np.diag(np.exp(2 * log_std).mean(0))
    centre = mean.mean(0)
    _, log_determinant = np.linalg.slogdet(covariance)
    return float((np.trace(covariance) + centre @ centre - len(centre) - log_determinant) / 2)


@_described(
    "effective dimensions",
    "how many latent directions carry the variance, from 1 to all",
    Margin(True),
    lambda of: (of.mean,) if of.mean.var(0).sum() > 0 else None,
)
def effective_dimensions(mean: np.ndarray) -> float:
    """The participation ratio of the covariance's eigenvalues, (sum l)^2 / sum l^2 (Gao et al. 2017, eq. 4)."""
    covariance = np.cov(mean.T, bias=True).reshape(mean.shape[1], -1)
    return float(1 / ((covariance / np.trace(covariance)) ** 2).sum())


def describe(
    mean: np.ndarray,
    log_std: np.ndarray | None,
    labels: np.ndarray,
    images: np.ndarray,
    standard_prior: bool = True,
    most: int = 2000,
) -> dict[str, float]:
    """Every metric of one set, on a fixed draw of `most` of its rows; what is not defined for it is left out.

    `mean` and `log_std` are latents of any shape, (N, ...).
    """
    rows = some_rows(len(mean), most)
    deviations = None if log_std is None else flat(log_std[rows])
    of = Latents(flat(mean[rows]), deviations, labels[rows], images[rows], standard_prior)
    found = {name: (function, given(of)) for name, (function, given) in DESCRIPTORS.items()}
    return {name: function(*arguments) for name, (function, arguments) in found.items() if arguments is not None}


def flat(latents: np.ndarray) -> np.ndarray:
    """Latents of any shape as rows, float64 (N, n)."""
    return np.asarray(latents, np.float64).reshape(len(latents), -1)
