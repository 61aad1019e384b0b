"""The finished runs of one model in each half, read once, and its test images, encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vae_common.backend import FRAMEWORKS, Halves
from vae_common.comparison.training import Group
from vae_common.config import Config
from vae_common.contracts import Posterior
from vae_common.data.seen import Seen, seen_by
from vae_common.data.splits import Dataset
from vae_common.figures.of_models import TrainedModel
from vae_common.metrics import descriptors
from vae_common.runs.checkpoints import Checkpoint
from vae_common.runs.folder import Run, load_model


@dataclass(frozen=True)
class FinishedRuns:
    """One half's runs of one model, in the order of their seeds."""

    folders: Sequence[Path]
    summaries: Sequence[dict[str, Any]]
    checkpoints: Sequence[Checkpoint]
    models: Sequence[Any]
    posteriors: Sequence[Posterior]
    """Of the test images, one for each run."""

    @property
    def means(self) -> list[np.ndarray]:
        """Each run's latent means of the test images, flat, (N, n)."""
        return [descriptors.flat(posterior.mean) for posterior in self.posteriors]


@dataclass(frozen=True)
class Finished:
    """One model's runs, by half."""

    model: str
    config: Config
    """Of the first half's first run."""
    images: Seen
    """The test images, as the models see them."""
    halves: Halves
    runs: dict[str, FinishedRuns]

    def trained(self) -> dict[str, TrainedModel]:
        """What figures are drawn of: each half's first run, with the histories of all."""
        found = {}
        for name, half in self.halves.items():
            runs = self.runs[name]
            histories = [checkpoint.history for checkpoint in runs.checkpoints]
            seed = runs.checkpoints[0].config.seed
            found[FRAMEWORKS[name]] = TrainedModel(half, runs.models[0], histories, runs.means[0], seed)
        return found


def read_finished(halves: Halves, model: str, group: Group, dataset: Dataset, seen: Seen | None = None) -> Finished:
    """Reads a model's runs and encodes the test images with each; InputError where one did not finish.

    `seen` are the test images as another model of the comparison saw them: they differ in nothing else.
    """
    seeds = sorted(group)
    folders = {name: [group[seed][name] for seed in seeds] for name in halves}
    saved = {name: [Run(folder).checkpoint() for folder in of_half] for name, of_half in folders.items()}
    config = saved[next(iter(halves))][0].config
    images = seen or seen_by(config, dataset, "test")
    runs = {}
    for name, half in halves.items():
        summaries = [Run(folder).summary(own) for folder, own in zip(folders[name], saved[name])]
        models = [load_model(half, checkpoint) for checkpoint in saved[name]]
        posteriors = [half.encode(network, images.images, images.labels) for network in models]
        runs[name] = FinishedRuns(folders[name], summaries, saved[name], models, posteriors)
    return Finished(model, config, images, halves, runs)
