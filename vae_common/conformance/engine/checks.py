"""What two implementations may differ by, and how a difference is measured.

Scalars: |a-b| / |b|. Tensors: max|a-b| / max|b|, never elementwise (gradients hold exact zeros).
Parameters: the largest difference in units of the learning rate, Adam's step size. A check fails first
on values that are not finite, on unequal names, and where nothing was compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Check:
    """One comparison of one quantity."""

    tier: str
    quantity: str
    """What was compared: `decoder.logits.weight`."""
    where: str
    """In which state, between whom: `warm: jax against reference`."""
    measured: float
    """Infinite where the values are not finite, differ in kind, or nothing was compared."""
    tolerance: float
    """0 where equality has to be exact."""
    step: int | None = None
    """Of many the worst, from 1."""

    @property
    def name(self) -> str:
        """The check as a person reads it."""
        step = "" if self.step is None else f" at step {self.step}"
        return f"{self.quantity}{step}, {self.where}"

    @property
    def passed(self) -> bool:
        """Whether the measured difference is within the tolerance."""
        return self.measured <= self.tolerance

    @property
    def ratio(self) -> float:
        """Measured over tolerance; an exact check that passes has 0."""
        return 0.0 if self.measured == 0 else self.measured / self.tolerance if self.tolerance else np.inf


def difference(a: Any, b: Any, unit: float | None = None) -> float:
    """Largest absolute difference over b's largest value, or over `unit`; infinite where not comparable."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or not a.size or a.dtype.kind != b.dtype.kind:
        return np.inf
    a, b = a.astype(np.float64), b.astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return np.inf
    largest = float(np.abs(a - b).max())
    scale = float(np.abs(b).max()) if unit is None else unit
    return 0.0 if largest == 0 else largest / scale if scale else np.inf


def array_checks(
    tier: str, where: str, a: Mapping[str, Any], b: Mapping[str, Any], tolerance: float, unit: float | None = None
) -> list[Check]:
    """One check per name; unequal or empty sets of names are one check that fails."""
    if a.keys() != b.keys() or not a:
        odd = sorted(a.keys() ^ b.keys()) or "nothing to compare"
        return [Check(tier, f"names {odd}", where, np.inf, tolerance)]
    return [Check(tier, name, where, difference(a[name], b[name], unit), tolerance) for name in b]


def rounded_update_checks(
    tier: str, where: str, a: Mapping[str, Any], b: Mapping[str, Any], tolerance: float, rate: float
) -> list[Check]:
    """float32: in step sizes (`rate`), what is beyond two units in the last place of each element."""

    def beyond_rounding(x: np.ndarray, y: np.ndarray, name: str) -> float:
        rounding = 2 * np.spacing(np.abs(y).astype(np.float32)).astype(np.float64)
        return float(np.maximum(np.abs(x - y) - rounding, 0).max()) / rate

    return _measured(array_checks(tier, where, a, b, tolerance, rate), a, b, beyond_rounding)


def update_checks(
    tier: str,
    where: str,
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    before: Mapping[str, np.ndarray],
    tolerance: float,
) -> list[Check]:
    """L2(difference) / L2(update) of each tensor after many steps.

    Not the largest difference: where a gradient is as small as Adam's eps, its rounding is divided by eps,
    so single weights of an autoencoder are 1e-7 learning rates apart after an epoch of float64 steps.
    """

    def share_of_update(x: np.ndarray, y: np.ndarray, name: str) -> float:
        gap = float(np.linalg.norm(x - y))
        return gap / float(np.linalg.norm(y - before[name])) if gap else 0.0

    return _measured(array_checks(tier, where, a, b, tolerance), a, b, share_of_update)


def _measured(
    checks: list[Check],
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    measure: Callable[[np.ndarray, np.ndarray, str], float],
) -> list[Check]:
    """The checks of `array_checks` with another measure, where there is something to measure."""
    if a.keys() != b.keys() or not a:
        return checks
    return [
        replace(check, measured=measure(np.asarray(a[name], np.float64), np.asarray(b[name], np.float64), name))
        if np.isfinite(check.measured)
        else check
        for check, name in zip(checks, b)
    ]


def chaotic_update_checks(
    tier: str,
    where: str,
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    before: Mapping[str, np.ndarray],
    tolerance: float,
    rate: float,
) -> list[Check]:
    """float32: Adam turns a gradient near zero into a whole step, so the norm over all parameters counts,
    and the share of elements that are more than a thousandth of a learning rate apart."""
    if a.keys() != b.keys() or any(difference(a[name], b[name]) == np.inf for name in b) or not b:
        return [Check(tier, "parameters not comparable", where, np.inf, tolerance)]

    def flat(arrays: Mapping[str, Any]) -> np.ndarray:
        return np.concatenate([np.asarray(arrays[name], np.float64).ravel() for name in b])

    gap = flat(a) - flat(b)
    norm = float(np.linalg.norm(gap) / np.linalg.norm(flat(b) - flat(before)))
    outliers = float((np.abs(gap) > 1e-3 * rate).mean())
    most = max(2e-4, 1.5 / gap.size)  # one element of a small model is no fault
    return [Check(tier, "update", where, norm, tolerance), Check(tier, "outliers", where, outliers, most)]
