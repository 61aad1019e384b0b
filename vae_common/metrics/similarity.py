"""Metrics of latent structure: between two sets of latents of the same images, and of one set.

Latents are arrays (N, latent_dim), one row per image. Two trainings may learn the same structure in
other coordinates, so the metrics between sets are blind to them, each to its own extent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import optimize, spatial, stats
from sklearn.neighbors import NearestNeighbors

from vae_common.randomness import some_rows


def linear_cka(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased linear CKA, 1 for equal structure, about 0 for unrelated; blind to rotation, sign, scale.

    Song et al. 2012's unbiased HSIC in Kornblith et al. 2019's ratio. Needs at least 4 rows.
    """
    grams = [x @ x.T for x in both_centred(a, b)]
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


def rsa(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman correlation of all pairwise distances; blind to rotation, sign, scale."""
    return float(stats.spearmanr(spatial.distance.pdist(a), spatial.distance.pdist(b)).statistic)


def mutual_neighbours(a: np.ndarray, b: np.ndarray, k: int = 10) -> float:
    """Mean share of each image's k nearest neighbours that both sets agree on, 0 to 1."""
    return shared_neighbours(nearest(a, k), nearest(b, k))


def nearest(x: np.ndarray, k: int = 10) -> np.ndarray:
    """Each row's k nearest other rows, (N, k) indices."""
    places: np.ndarray = NearestNeighbors(n_neighbors=min(k, len(x) - 1)).fit(x).kneighbors(return_distance=False)
    return places


def shared_neighbours(a: np.ndarray, b: np.ndarray) -> float:
    """Mean share of two sets' nearest neighbours, (N, k) indices each, that they have in common."""
    return float((a[:, :, None] == b[:, None, :]).any(2).mean())


def axis_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute correlation of the best-matched axes; blind to sign, permutation, scale of axes."""
    a, b = (x / np.maximum(np.linalg.norm(x, axis=0), 1e-300) for x in both_centred(a, b))
    correlations = np.abs(a.T @ b)
    rows, columns = optimize.linear_sum_assignment(-correlations)
    return float(correlations[rows, columns].mean())


def similarities(a: np.ndarray, b: np.ndarray, most: int = 2000) -> dict[str, float | None]:
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


def both_centred(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return a - a.mean(0), b - b.mean(0)
