"""What a comparison was asked for, kept in its folder, so that it goes on after a stop."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vae_common import files
from vae_common.comparison.options import ClaimOptions
from vae_common.config import Config
from vae_common.config.checks import require_each_once
from vae_common.data.splits import Dataset
from vae_common.errors import InputError
from vae_common.figures.options import FigureOptions

KIND = "comparison"
PLAN = "comparison.json"
"""What a comparison was asked for, in its folder: written first, so that it goes on after a stop."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a comparison trains and draws."""

    configs: tuple[Config, ...]
    """Of every training, but for its seed: one for each model."""
    seeds: tuple[int, ...]
    ensemble: bool
    """Whether a half trains all seeds of a model in one program."""
    claims: ClaimOptions
    figures: FigureOptions
    command: tuple[str, ...]
    """What it was begun with."""

    @property
    def models(self) -> tuple[str, ...]:
        """The models' names."""
        return tuple(config.model for config in self.configs)

    @property
    def shift(self) -> int:
        """How far the second half's seeds are from the first's, so that none is in both where none may be."""
        return max(self.seeds) + 1 - min(self.seeds) if self.claims.disjoint else 0

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """Both halves' seeds."""
        return (*self.seeds, *(seed + self.shift for seed in self.seeds))

    def write(self, folder: Path, dataset: Dataset) -> None:
        """Keeps the plan in the comparison's folder."""
        configs = [config.to_json() for config in self.configs]
        values = dataclasses.asdict(self) | {"configs": configs, "data": dataset.fingerprint}
        values["claims"]["pilot"] = None if self.claims.pilot is None else str(self.claims.pilot)
        files.write_json(folder / PLAN, {files.KIND: KIND} | values)

    @classmethod
    def read(cls, folder: Path) -> tuple[Plan, str]:
        """A folder's plan, and the fingerprint of the data that it was begun with; InputError where it is none."""
        path = folder / PLAN
        if not path.exists():
            raise InputError(f"resume: {folder} has no {PLAN}; expected a folder that compare began")
        held = files.read_json(path, "resume")
        try:
            pilot, window = held["claims"]["pilot"], held["figures"]["window"]
            ends = held["figures"]["interpolate"]
            options = {"window": window and tuple(window), "interpolate": ends and tuple(ends)}
            plan = cls(
                configs=tuple(map(Config.from_record, held["configs"] if "configs" in held else _of_models(held))),
                seeds=tuple(held["seeds"]),
                ensemble=bool(held["ensemble"] if "ensemble" in held else held["parallel_seeds"]),  # its earlier name
                claims=ClaimOptions(**held["claims"] | {"pilot": pilot and Path(pilot)}),
                figures=FigureOptions(**held["figures"] | options),
                command=tuple(held["command"]),
            )
            require_each_once(models=plan.models)
            return plan, str(held["data"])
        except (KeyError, TypeError, ValueError) as error:
            said = f"resume: {path} is damaged ({files.reason(error)})"
            raise InputError(f"{said}; start the comparison anew") from error


def _of_models(held: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The configs of a plan that an earlier version wrote: one for all models."""
    return [held["config"] | {"model": model} for model in held["models"]]
