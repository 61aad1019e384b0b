"""The two-dimensional plane of a latent space that figures show, and its windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from vae_common.metrics.similarity import both_centred


def procrustes_align(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`b` rotated, reflected, scaled and moved onto `a` in the least-squares sense, in a's units.

    Where all of `b` is one point, that is a's mean.
    """
    (a_centred, b_centred), middle = both_centred(a, b), a.mean(0)
    u, singular, vt = np.linalg.svd(b_centred.T @ a_centred)
    size = (b_centred**2).sum()
    points: np.ndarray = b_centred @ (u @ vt) * (singular.sum() / size if size else 0) + middle
    return points


Window = tuple[float, float, float, float]
"""x0, x1, y0, y1 in latent units."""


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
        points: np.ndarray = (latents - self.origin) @ self.axes.T
        return points

    def lift(self, points: np.ndarray) -> np.ndarray:
        """Coordinates (N, 2) to latents (N, latent_dim) on the plane."""
        result: np.ndarray = self.origin + points @ self.axes
        return result


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


def data_window(points: np.ndarray) -> Window:
    """x0, x1, y0, y1 that hold the central 95 % of points (N, 2) along each axis."""
    (x0, y0), (x1, y1) = np.quantile(points, (0.025, 0.975), axis=0)
    return float(x0), float(x1), float(y0), float(y1)


def prior_window() -> Window:
    """x0, x1, y0, y1 between the 2.5 % and 97.5 % quantiles of the standard-normal prior."""
    low, high = ndtri((0.025, 0.975))
    return float(low), float(high), float(low), float(high)


def grid_points(window: Window, side: int) -> np.ndarray:
    """The centres of side x side equal cells of a window, (side * side, 2), row by row from the top."""
    x0, x1, y0, y1 = window
    centres = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(x0 + (x1 - x0) * centres, y1 - (y1 - y0) * centres)
    return np.stack([x.ravel(), y.ravel()], axis=1)
