"""What a user may choose about the figures of a model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vae_common.config.checks import require_count
from vae_common.errors import InputError, shown

if TYPE_CHECKING:
    from vae_common.data.splits import Dataset

MOST_STEPS, MOST_SIDE = 100, 60


@dataclass(frozen=True)
class FigureOptions:
    """What a user may choose about the figures."""

    window: tuple[float, float, float, float] | None = None
    """x0 x1 y0 y1 of the decoded grid in latent units; the tutorial's own is -5 10 -10 5."""
    interpolate: tuple[int, int] | None = None
    """Two test images by index; by default the first two of different classes."""
    steps: int = 12
    """Images of the interpolation, 2 to 100."""
    grid_side: int = 15
    """Images along each side of the decoded grid, 1 to 60."""

    def __post_init__(self) -> None:
        require_count("steps", self.steps, 2, MOST_STEPS)
        require_count("grid_side", self.grid_side, 1, MOST_SIDE)
        if self.window is not None:
            window: Any = self.window
            numbers = isinstance(window, (tuple, list)) and len(window) == 4
            numbers = numbers and all(isinstance(edge, (int, float)) and math.isfinite(edge) for edge in window)
            if not (numbers and window[0] < window[1] and window[2] < window[3]):
                raise InputError(f"window: received {shown(window)}, expected finite x0 < x1 and y0 < y1")

    def check(self, dataset: Dataset) -> None:
        """Raises InputError where the set has no such test image."""
        for index in self.interpolate or ():
            if not 0 <= index < len(dataset.test):
                raise InputError(f"interpolate: received {index}, expected test images 0 to {len(dataset.test) - 1}")
