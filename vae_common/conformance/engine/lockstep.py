"""Two programs from the same start, compared after every step.

Knows iterators of numbers alone: any two programs that can say what a step gave can be held in lockstep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vae_common.conformance.engine.checks import Check, array_checks, difference

PARAMETERS = "parameters"
"""The name of the difference between all parameters."""


class Step(NamedTuple):
    """What one program's step gave."""

    scalars: Mapping[str, Any]
    """Losses by name."""
    parameters: Mapping[str, np.ndarray]
    """After the step."""
    state: Any
    """Whatever it takes to go on from here."""


@dataclass(frozen=True)
class Lockstep:
    """Two programs compared after every step."""

    differences: dict[str, np.ndarray]
    """Of each scalar (relative), and of the parameters (in units of the step size), (steps,) each."""
    limits: dict[str, np.ndarray]
    """Per step, of what is gated."""
    first_excess: int | None
    """The first step, from 1, where something exceeded its limit."""
    culprit: Check | None
    """The check that says where the programs part, from the state before that step."""
    parameters: dict[str, Mapping[str, np.ndarray]]
    """Each program's after the last step."""
    tier: str
    """Of its checks."""

    def checks(self) -> list[Check]:
        """One check per quantity that is gated: its worst step."""
        checks = []
        for name, limits in self.limits.items():
            values = self.differences[name]
            worst = int(np.argmax(values / limits))
            where = f"lockstep, {len(values)} steps"
            checks.append(Check(self.tier, name, where, float(values[worst]), float(limits[worst]), worst + 1))
        return checks


def in_lockstep(
    programs: Mapping[str, Iterable[Step]],
    limits: Mapping[str, np.ndarray],
    unit: float,
    locate: Callable[[int, Any], Check | None],
    tier: str = "lockstep",
) -> Lockstep:
    """Compares two programs step by step.

    Args:
        programs: two, by name; each gives as many steps as the limits have entries.
        limits: by scalar, and for `parameters`, per step. Every scalar is compared, with a limit or without.
        unit: what the parameters' difference is measured in: the step size.
        locate: called once, with the index of the first step that exceeds a limit and the second program's state before
            it (None before the first); says where the programs part.
        tier: what the result's checks are called.
    """
    (a, of_a), (b, of_b) = programs.items()
    first_excess, culprit, before = None, None, None
    differences: dict[str, list[float]] = {}
    ends: dict[str, Mapping[str, np.ndarray]] = {}
    for index, (x, y) in enumerate(zip(of_a, of_b)):
        gaps = {name: difference(x.scalars[name], y.scalars[name]) for name in x.scalars}
        apart = array_checks(tier, "", x.parameters, y.parameters, 0, unit)
        gaps[PARAMETERS] = max(check.measured for check in apart)
        for name, gap in gaps.items():
            differences.setdefault(name, []).append(gap)
        if first_excess is None and any(gaps[name] > limit[index] for name, limit in limits.items()):
            first_excess, culprit = index + 1, locate(index, before)
        before, ends = y.state, {a: x.parameters, b: y.parameters}
    found = {name: np.array(values) for name, values in differences.items()}
    return Lockstep(found, dict(limits), first_excess, culprit, ends, tier)
