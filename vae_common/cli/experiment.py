"""The flags of every script that trains, and how its data are found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import tyro

from vae_common.backend import Halves
from vae_common.config import PRESETS, Config, DataConfig, LossConfig, NetworkConfig, OptimizerConfig, TrainingConfig
from vae_common.config.experiment import parts_of_models
from vae_common.config.registry import MODELS

if TYPE_CHECKING:
    from vae_common.data.splits import Dataset

    ModelName: TypeAlias = str
    Preset: TypeAlias = str
else:  # the registries decide
    ModelName, Preset = Literal[tuple(MODELS)], Literal[tuple(PRESETS)]
Flat = tyro.conf.arg(name="")


@dataclass(frozen=True)
class Experiment:
    """The fields of the config's parts, as flags."""

    preset: Preset = "default"
    """Where the other flags start from."""
    network: Annotated[NetworkConfig, Flat] = field(default_factory=NetworkConfig)
    loss: Annotated[LossConfig, Flat] = field(default_factory=LossConfig)
    data: Annotated[DataConfig, Flat] = field(default_factory=DataConfig)
    training: Annotated[TrainingConfig, Flat] = field(default_factory=TrainingConfig)
    optimizer: Annotated[OptimizerConfig, Flat] = field(default_factory=OptimizerConfig)
    program_cache: bool = True
    """Keeps compiled programs in the user's cache folder, so that the next start is quicker."""
    threads: int | None = None
    """Of each half on a CPU; by default one for each processor."""

    def load(
        self, halves: Halves, model: str = "vae", seed: int = 0, seeds_together: int = 1
    ) -> tuple[Config, Dataset]:
        """The config of that model and seed for this data, and the data.

        Raises InputError for whatever would stop a training later: nothing has been written yet.
        """
        from vae_common.runs.trainer import require_trainable

        dataset = load_dataset(self.data)
        (config,) = self.configs([model], dataset, seed)
        for half in halves.values():
            require_trainable(half, config, dataset, seeds_together)
        return config, dataset

    def configs(self, models: Sequence[str], dataset: Dataset, seed: int = 0) -> list[Config]:
        """The config of each of these models for this data: fields that only others of them have are left out.

        Raises InputError for a field that none of them has.
        """
        parts: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(Config) if hasattr(self, f.name)}
        common: dict[str, Any] = {
            "seed": seed,
            "image_shape": dataset.image_shape,
            "train_images": len(dataset.train),
        }
        return [Config(model=model, **common, **own) for model, own in parts_of_models(parts, models)]


def load_dataset(data: DataConfig) -> Dataset:
    """The config's set, its validation split held out."""
    from vae_common.data import datasets

    return datasets.load_for(data, progress=True)


def moved(data: DataConfig, dataset: str | None, data_dir: str | None, manual_dir: str | None = None) -> DataConfig:
    """A run's data where they are now, if they are not where they were."""
    given: dict[str, Any] = {"dataset": dataset, "data_dir": data_dir, "manual_dir": manual_dir}
    return replace(data, **{name: value for name, value in given.items() if value is not None})
