"""What a comparison claims of the two halves: each claim with its verdict and its numbers, by name.

    lockstep     the same seed, step by step (lockstep.py)
    paired       the same seeds, shared randomness: losses by TOST (over_seeds.py)
    independent  disjoint seeds, each framework's own randomness: losses and latent descriptors by TOST,
                 neighbourhoods of all runs' latents by an energy test (over_seeds.py)

A statistical claim ends as `equivalent`, `not decided` or `different`.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from vae_common.conformance.engine.equivalence import Equivalence
from vae_common.metrics.table import title

HOLDS = ("equal", "equivalent", "no alarm")
"""Verdicts of claims that hold."""
Numbers = list[tuple[str, float]]
"""What a claim's numbers are called where they are shown, and the numbers."""


@dataclass(frozen=True)
class Claim(ABC):
    """What is said of one model."""

    kind: ClassVar[str]
    model: str
    verdict: str

    @property
    def holds(self) -> bool:
        """Whether what is claimed was found."""
        return self.verdict in HOLDS

    @property
    @abstractmethod
    def statement(self) -> str:
        """The claim as a person reads it."""

    @abstractmethod
    def shown(self) -> Numbers:
        """The numbers that a report prints beside it."""

    def to_json(self) -> dict[str, Any]:
        """Its fields, with what it says in words."""
        return {"kind": self.kind, "claim": self.statement, "holds": self.holds} | dataclasses.asdict(self)


@dataclass(frozen=True)
class EquivalenceClaim(Claim):
    """Two means over seeds differ by less than a margin."""

    kind = "equivalence"
    metric: str
    """A term such as `kl_nats`, or a latent descriptor."""
    paired: bool
    relative: bool
    """Whether differences are relative to the first half's mean."""
    margin_from: str
    result: Equivalence

    @property
    def statement(self) -> str:
        return f"{'paired' if self.paired else 'independent'} seeds, {title(self.metric)}"

    def shown(self) -> Numbers:
        found = self.result
        return [("difference", found.difference), ("margin", found.margin), ("p", found.p), ("power", found.power)]


@dataclass(frozen=True)
class EnergyTest:
    """How unlike two groups of latents are, by one measure of likeness."""

    energy: float
    p: float


@dataclass(frozen=True)
class NeighbourhoodClaim(Claim):
    """The latents of one half's runs differ from the other's no more than among themselves."""

    kind = "neighbourhoods"
    gate: str
    """The measure whose p value decides."""
    runs: int
    """A half."""
    smallest_p: float
    """The least that so few runs can give."""
    tests: Mapping[str, EnergyTest]
    """By measure."""

    @property
    def statement(self) -> str:
        return f"independent seeds, latents by the energy test (gate: {title(self.gate)})"

    def shown(self) -> Numbers:
        numbers: Numbers = [("runs a half", self.runs), ("smallest p possible", self.smallest_p)]
        for metric, test in self.tests.items():
            numbers += [(f"energy, {title(metric)}", test.energy), (f"p, {title(metric)}", test.p)]
        return numbers


@dataclass(frozen=True)
class LockstepClaim(Claim):
    """The same seed gives the same losses, weights and latents."""

    kind = "lockstep"
    steps: int
    largest_difference: Mapping[str, float]
    """By quantity, over all steps: losses relative, parameters in learning rates."""
    share_of_tolerance: float
    """The largest of any check."""
    share_of_tolerance_by_train_epoch: float
    """The largest of those that hold `train_epoch` against the oracle."""
    first_excess: int | None
    """The step, from 1."""
    culprit: str | None
    """The check that says where the halves part."""
    has_oracle: bool
    """Whether the reference knows the model; else the halves are held against each other alone."""

    @property
    def statement(self) -> str:
        alone = "" if self.has_oracle else "; unproven against the reference, which does not know the model"
        return f"the same seed gives the same losses, weights and latents, float64, {self.steps} steps{alone}"

    def shown(self) -> Numbers:
        numbers: Numbers = [(f"largest difference, {name}", gap) for name, gap in self.largest_difference.items()]
        numbers.append(("largest share of a tolerance", self.share_of_tolerance))
        return numbers if self.first_excess is None else [*numbers, ("first excess at step", self.first_excess)]


@dataclass(frozen=True)
class StructureClaim(Claim):
    """The same seed gives latents of the same structure in float32, where networks with ReLU part."""

    kind = "latent structure"
    steps: int
    similarities: Mapping[str, float | None]
    """By metric; None where it is not defined."""
    active_units_apart: int

    @property
    def statement(self) -> str:
        return f"the same seed gives latents of the same structure, float32, {self.steps} steps"

    def shown(self) -> Numbers:
        known = [(title(name), value) for name, value in self.similarities.items() if value is not None]
        return [*known, ("active units apart", self.active_units_apart)]


def failed(claims: Sequence[Claim]) -> list[Claim]:
    """The claims that do not hold."""
    return [claim for claim in claims if not claim.holds]
