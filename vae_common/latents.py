"""Metrics of latent structure: between two sets of latents of the same images, and of one set.

Latents are arrays (N, latent_dim), one row per image. Two trainings may learn the same structure in
other coordinates, so the metrics between sets are blind to them, each to its own extent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, spatial, stats
from sklearn.manifold import trustworthiness as sklearn_trustworthiness
from sklearn.metrics import silhouette_score
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from vae_common.randomness import some_rows

ACTIVE_VARIANCE = 0.01
METRICS = {
    "linear_cka": "1: the same up to rotation and scale; 0: unrelated",
    "procrustes_disparity": "0: the same up to rotation and scale; 1: nothing in common",
    "rsa": "1: the same distances between images, in order; 0: unrelated",
    "mutual_neighbours": "share of each image's 10 nearest that are nearest in both",
    "axis_correlation": "1: the same axes, in any order and sign; not blind to rotation",
    "trustworthiness": "1: neighbours in the latent space are neighbours in pixels",
    "knn_accuracy": "accuracy of naming the class by the 10 nearest latents",
    "silhouette": "1: classes far apart; 0: they touch; below: they lie within each other",
    "active_units": "latent dimensions whose mean varies by more than 0.01",
    "aggregate_posterior_kl_nats": "nats between all posteriors together and the prior; 0: the prior is met",
}
"""What a value of each metric says, in a line."""


def linear_cka(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased linear CKA, 1 for equal structure, about 0 for unrelated; blind to rotation, sign, scale.

    Song et al. 2012's unbiased HSIC in Kornblith et al. 2019's ratio. Needs at least 4 rows.
    """
    grams = [x @ x.T for x in _both_centred(a, b)]
    for gram in grams:
        np.fill_diagonal(gram, 0)
    return float(_hsic(*grams) / np.sqrt(_hsic(grams[0], grams[0]) * _hsic(grams[1], grams[1])))


def _hsic(k: np.ndarray, m: np.ndarray) -> float:
    n = len(k)
    k_rows, m_rows = k.sum(0), m.sum(0)
    cross = k_rows.sum() * m_rows.sum() / ((n - 1) * (n - 2)) - 2 * (k_rows @ m_rows) / (n - 2)
    return float(((k * m).sum() + cross) / (n * (n - 3)))


def procrustes_disparity(a: np.ndarray, b: np.ndarray) -> float:
    """What is left after the best rotation and scaling, 0 (equal) to 1; blind to rotation, sign, scale."""
    return float(spatial.procrustes(a, b)[2])


def procrustes_align(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`b` rotated, reflected, scaled and moved onto `a` in the least-squares sense, in a's units."""
    (a_centred, b_centred), middle = _both_centred(a, b), a.mean(0)
    u, singular, vt = np.linalg.svd(b_centred.T @ a_centred)
    return b_centred @ (u @ vt) * (singular.sum() / (b_centred**2).sum()) + middle


def rsa(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman correlation of all pairwise distances; blind to rotation, sign, scale."""
    return float(stats.spearmanr(spatial.distance.pdist(a), spatial.distance.pdist(b)).statistic)


def mutual_neighbours(a: np.ndarray, b: np.ndarray, k: int = 10) -> float:
    """Mean share of each image's k nearest neighbours that both sets agree on, 0 to 1."""
    return shared_neighbours(nearest(a, k), nearest(b, k))


def nearest(x: np.ndarray, k: int = 10) -> np.ndarray:
    """Each row's k nearest other rows, (N, k) indices."""
    return NearestNeighbors(n_neighbors=min(k, len(x) - 1)).fit(x).kneighbors(return_distance=False)


def shared_neighbours(a: np.ndarray, b: np.ndarray) -> float:
    """Mean share of two sets' nearest neighbours, (N, k) indices each, that they have in common."""
    return float((a[:, :, None] == b[:, None, :]).any(2).mean())


def axis_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute correlation of the best-matched axes; blind to sign, permutation, scale of axes."""
    a, b = (x / np.maximum(np.linalg.norm(x, axis=0), 1e-300) for x in _both_centred(a, b))
    correlations = np.abs(a.T @ b)
    rows, columns = optimize.linear_sum_assignment(-correlations)
    return float(correlations[rows, columns].mean())


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


def compare(a: np.ndarray, b: np.ndarray, most: int = 2000) -> dict[str, float | None]:
    """Every metric between two sets, on a fixed draw of `most` of their rows (the pairwise ones grow as N^2).

    None where a metric is not defined: fewer than 4 rows, or latents that are all equal.
    """
    rows = some_rows(len(a), most)
    a, b = (np.asarray(x[rows], np.float64) for x in (a, b))
    metrics = (linear_cka, procrustes_disparity, rsa, mutual_neighbours, axis_correlation)
    defined = len(a) >= 4 and all(np.ptp(x, axis=0).any() for x in (a, b))
    return {metric.__name__: metric(a, b) if defined else None for metric in metrics}


def dissimilarities(sets: Sequence[np.ndarray], scale_free: bool) -> dict[str, np.ndarray]:
    """How unlike each two of several sets of latents of the same images are: metric -> (sets, sets), 0 is alike.

    With `scale_free` neighbours and the rank correlation of distances only, as for autoencoders, whose
    latents have no scale of their own.
    """
    near = [nearest(x) for x in sets]
    ranks = [stats.zscore(stats.rankdata(spatial.distance.pdist(x))) for x in sets]
    pairs: dict[str, Callable[[int, int], float]] = {
        "mutual_neighbours": lambda i, j: 1 - shared_neighbours(near[i], near[j]),
        "rsa": lambda i, j: 1 - float(ranks[i] @ ranks[j]) / len(ranks[i]),
    }
    if not scale_free:
        pairs["linear_cka"] = lambda i, j: 1 - linear_cka(sets[i], sets[j])
        pairs["procrustes_disparity"] = lambda i, j: procrustes_disparity(sets[i], sets[j])
        pairs["axis_correlation"] = lambda i, j: 1 - axis_correlation(sets[i], sets[j])
    found = {}
    for name, pair in pairs.items():
        found[name] = np.zeros((len(sets), len(sets)))
        for i in range(len(sets)):
            for j in range(i):
                found[name][i, j] = found[name][j, i] = pair(i, j)
    return found


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


def _both_centred(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return a - a.mean(0), b - b.mean(0)


@dataclass(frozen=True)
class Plane:
    """The two-dimensional plane of a latent space that figures show."""

    origin: np.ndarray
    """Shape (latent_dim,)."""
    axes: np.ndarray
    """Orthonormal rows, shape (2, latent_dim); a one-dimensional space has a second row of zeros."""
    labels: tuple[str, str]
    """Of the figure's x and y axis."""
    others: str = ""
    """Where the plane lies along all other dimensions; empty where there are none."""

    def project(self, latents: np.ndarray) -> np.ndarray:
        """Latents (N, latent_dim) to the plane's coordinates (N, 2), in latent units."""
        return (latents - self.origin) @ self.axes.T

    def lift(self, points: np.ndarray) -> np.ndarray:
        """Coordinates (N, 2) to latents (N, latent_dim) on the plane."""
        return self.origin + points @ self.axes


def plane_of(latents: np.ndarray, origin: np.ndarray | None = None) -> Plane:
    """The space itself up to two dimensions, else its first two principal components.

    `origin` is where the plane passes through, by default the latents' mean (for a prior: zeros).
    """
    latent_dim = latents.shape[1]
    if latent_dim <= 2:
        labels = ("latent dimension 1", "latent dimension 2" if latent_dim == 2 else "")
        return Plane(np.zeros(latent_dim), np.eye(2, latent_dim), labels)
    mean = latents.mean(0)
    variances, vectors = np.linalg.eigh(np.cov(latents.T, bias=True))
    variances, components = variances[::-1], vectors.T[::-1]
    signs = np.sign(components[np.arange(2), np.abs(components[:2]).argmax(1)])
    share = variances[:2] / (variances.sum() or 1)
    x, y = (f"principal component {i + 1} of {latent_dim} dimensions ({share[i]:.0%} of variance)" for i in (0, 1))
    where = "the latents' mean" if origin is None else "0, the prior's mean"
    others = f"the other {latent_dim - 2} components at {where}"
    return Plane(mean if origin is None else origin, components[:2] * signs[:, None], (x, y), others)


def data_window(points: np.ndarray) -> tuple[float, float, float, float]:
    """x0, x1, y0, y1 that hold the central 95 % of points (N, 2) along each axis."""
    (x0, y0), (x1, y1) = np.quantile(points, (0.025, 0.975), axis=0)
    return float(x0), float(x1), float(y0), float(y1)


def prior_window() -> tuple[float, float, float, float]:
    """x0, x1, y0, y1 between the 2.5 % and 97.5 % quantiles of the standard-normal prior."""
    low, high = stats.norm.ppf((0.025, 0.975))
    return float(low), float(high), float(low), float(high)


def grid_points(window: tuple[float, float, float, float], side: int) -> np.ndarray:
    """The centres of side x side equal cells of a window, (side * side, 2), row by row from the top."""
    x0, x1, y0, y1 = window
    centres = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(x0 + (x1 - x0) * centres, y1 - (y1 - y0) * centres)
    return np.stack([x.ravel(), y.ravel()], axis=1)
