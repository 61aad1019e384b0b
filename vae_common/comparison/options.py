"""What a user may have checked about the halves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vae_common.config.checks import require_count
from vae_common.errors import InputError

MOST_LOCKSTEP = 100_000


@dataclass(frozen=True)
class ClaimOptions:
    """What a user may have checked about the halves."""

    check: Literal["none", "lockstep", "paired", "independent"] = "none"
    """lockstep: the same seed, step by step, in float64; paired: the same seeds, statistically;
    independent: disjoint seeds and native randomness. Exit status 1 where a claim does not hold."""
    lockstep_steps: int = 300
    """Training steps of --check lockstep."""
    pilot: Path | None = None
    """summary.json of an earlier --check independent on other seeds, whose spread sets the margins of this one."""

    def __post_init__(self) -> None:
        require_count("lockstep_steps", self.lockstep_steps, 1, MOST_LOCKSTEP)
        if self.pilot is not None and not self.disjoint:
            raise InputError(f"pilot: received {self.pilot} without --check independent, expected both")

    @property
    def disjoint(self) -> bool:
        """Whether the two halves train on different seeds."""
        return self.check == "independent"

    def require_seeds(self, count: int) -> None:
        """Raises InputError where so few seeds a half can show nothing."""
        if self.check in ("paired", "independent") and count < 2:
            raise InputError(f"seeds: received {count} for --check {self.check}, expected at least 2")

    def require_randomness(self, randomness: str) -> None:
        """Raises InputError where the numbers were drawn in another way than the claim is about."""
        equal = ("shared", "counter")
        expected = {"lockstep": equal, "paired": equal, "independent": ("native",)}.get(self.check, (randomness,))
        if randomness not in expected:
            wanted = " or ".join(expected)
            raise InputError(f"randomness: received {randomness} for --check {self.check}, expected {wanted}")
