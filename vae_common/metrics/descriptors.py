"""Metrics of one set of latents: what it says of its images' classes and neighbours, and of its prior.

Latents are arrays (N, latent_dim), one row per image."""

from __future__ import annotations

import numpy as np
from sklearn.manifold import trustworthiness as sklearn_trustworthiness
from sklearn.metrics import silhouette_score
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from vae_common.randomness import some_rows

ACTIVE_VARIANCE = 0.01


def knn_accuracy(latents: np.ndarray, labels: np.ndarray, k: int = 10) -> float:
    """Five-fold cross-validated accuracy of a k-nearest-neighbour classifier of the labels, 0 to 1.

    Needs at least 20 rows, and a class with at least 5.
    """
    return float(cross_val_score(KNeighborsClassifier(k), latents, labels, cv=5).mean())


def silhouette(latents: np.ndarray, labels: np.ndarray) -> float:
    """Mean silhouette of the classes, -1 to 1: how far apart they lie against their own spread."""
    return float(silhouette_score(latents, labels))


def trustworthiness(images: np.ndarray, latents: np.ndarray, k: int = 10) -> float:
    """Share of latent neighbours that are neighbours in pixels too, 0 to 1 (Venna and Kaski 2001)."""
    return float(sklearn_trustworthiness(images.reshape(len(images), -1), latents, n_neighbors=k))


def active_units(mean: np.ndarray) -> int:
    """Latent dimensions whose posterior mean varies by more than 0.01 (Burda et al. 2016)."""
    return int((mean.var(0) > ACTIVE_VARIANCE).sum())


def aggregate_posterior_kl(mean: np.ndarray, log_std: np.ndarray) -> float:
    """KL to N(0, I), in nats, of the Gaussian with the aggregate posterior's mean and covariance.

    The covariance is that of the means plus the average posterior variance, so unlike every other
    metric here it sees the posterior's scale.
    """
    covariance = np.cov(mean.T, bias=True).reshape(mean.shape[1], -1) + np.diag(np.exp(2 * log_std).mean(0))
    centre = mean.mean(0)
    _, log_determinant = np.linalg.slogdet(covariance)
    return float((np.trace(covariance) + centre @ centre - len(centre) - log_determinant) / 2)


def describe(
    mean: np.ndarray, log_std: np.ndarray | None, labels: np.ndarray, images: np.ndarray, most: int = 2000
) -> dict[str, float]:
    """Every metric of one set, on a fixed draw of `most` of its rows; what is not defined for it is left out.

    Neighbourhoods need more than 20 rows, class metrics labels, the last two a posterior.
    """
    rows = some_rows(len(mean), most)
    mean, labels, images = np.asarray(mean[rows], np.float64), labels[rows], images[rows]
    values: dict[str, float] = {}
    if len(mean) > 20:
        values["trustworthiness"] = trustworthiness(images, mean)
    _, sizes = np.unique(labels, return_counts=True)
    if labels.min() >= 0 and len(mean) >= 20 and len(sizes) > 1 and sizes.max() >= 5:
        values["knn_accuracy"] = knn_accuracy(mean, labels)
        values["silhouette"] = silhouette(mean, labels)
    if log_std is not None:
        values["active_units"] = active_units(mean)
        log_std = np.asarray(log_std[rows], np.float64)
        values["aggregate_posterior_kl_nats"] = aggregate_posterior_kl(mean, log_std)
    return values
