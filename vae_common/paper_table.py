"""Table 1 of Importance Weighted Autoencoders (Burda, Grosse and Salakhutdinov 2016), one stochastic layer, MNIST.

Eight stages i = 0 to 7 of 3^i passes each with learning rate 1e-3 * 10^(-i/7), rounded as the authors round it. A row
is one objective and number of samples k; VAE and IWAE with k = 1 are the same model, trained once. Each run is a folder
of runs.py that goes on from its last checkpoint; what a stage's model is worth is written beside it once known.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

from vae_common import datasets, evaluations, resume, runs, trainings
from vae_common.checkpoints import FRAMEWORKS
from vae_common.configs import PRESETS, Config, InputError, LossConfig, OptimizerConfig

Row = Literal["k1", "vae-k5", "vae-k50", "iwae-k5", "iwae-k50"]
Adam = Literal["paper", "code"]
LAST_STAGE = 7
ADAMS = {
    "paper": OptimizerConfig(beta1=0.9, eps=1e-4),
    "code": OptimizerConfig(beta1=0.99, eps=1e-4, second_moment_start=1.0),
}
PUBLISHED = {
    ("VAE", 1): 86.76, ("VAE", 5): 86.47, ("VAE", 50): 86.35,
    ("IWAE", 1): 86.76, ("IWAE", 5): 85.54, ("IWAE", 50): 84.78,
}  # fmt: skip
"""NLL in nats from 5,000 draws, all eight stages (table 1)."""


class Entry(NamedTuple):
    """One number of the table."""

    objective: str
    samples: int

    @property
    def row(self) -> str:
        """The run that it comes from."""
        return "k1" if self.samples == 1 else f"{self.objective.lower()}-k{self.samples}"


def passes(stage: int) -> int:
    """Passes over the training images until the end of a stage."""
    return sum(3**i for i in range(stage + 1))


def learning_rate(stage: int) -> float:
    """A stage's step size."""
    return round(10 ** (1 - stage / LAST_STAGE), 1) * 1e-4


def config_of(base: Config, row: str, stage: int, adam: str) -> Config:
    """A row's experiment up to the end of a stage."""
    objective, samples = ("iwae" if row.startswith("iwae") else "elbo"), int(row.rpartition("k")[2])
    training = dataclasses.replace(base.training, epochs=passes(stage), learning_rate=learning_rate(stage))
    loss = LossConfig(objective=objective, samples=samples, kl="sampled")  # type: ignore[arg-type]
    return dataclasses.replace(base, loss=loss, training=training, optimizer=ADAMS[adam])


def train_row(
    half: ModuleType,
    base: Config,
    row: str,
    stages: Sequence[int],
    adam: str,
    dataset: datasets.Dataset,
    folders: Mapping[int, Path],
    draws: int,
    command: Sequence[str],
) -> None:
    """Trains a row's seeds (folder by seed), in one program, from where they stand to the last stage; and evaluates.

    Whatever stands on the disk is gone on with; a stage's checkpoint is at its end, or at every tenth of it.
    """
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        configs = [dataclasses.replace(config_of(base, row, stage, adam), seed=seed) for seed in folders]
        points = [resume.resume_point(folder) if any(folder.iterdir()) else None for folder in folders.values()]
        done = {0 if point is None else point.epoch for point in points}
        if len(done) > 1:
            raise InputError(
                f"output: {', '.join(map(str, folders.values()))} stand at passes {sorted(done)}; delete one"
            )
        if done.pop() < passes(stage):
            common: Any = {"command": command, "checkpoint_every": max(1, 3**stage // 10)}
            if len(configs) == 1:
                (folder,) = folders.values()
                trainings.train(half, configs[0], dataset, folder, resume=points[0], **common)
            else:
                trainings.train_seeds(half, configs, dataset, list(folders.values()), resumes=points, **common)
    for folder in folders.values():
        estimate(half, folder, dataset, draws)


def estimate(half: ModuleType, folder: Path, dataset: datasets.Dataset, draws: int) -> dict[str, Any]:
    """The test NLL of a run's last checkpoint, from `evaluation.json` where it is there already."""
    checkpoint, path = runs.Run(folder).checkpoint(), folder / "evaluation.json"
    if path.exists():
        known = json.loads(path.read_text())
        if (known["epoch"], known["draws"]) == (checkpoint.epoch, draws):
            return known
    print(f"estimating {folder.name} after {checkpoint.epoch} passes", file=sys.stderr)
    found = evaluations.evaluate(half, checkpoint, dataset, draws)
    runs.Run(folder).write_json("evaluation.json", found)
    return found


def table(folder: Path, frameworks: Sequence[str], seeds: Sequence[int], stage: int) -> dict[str, Any]:
    """Every entry with what was published and what each half's finished runs found; None where a run is missing."""
    entries = []
    for objective, samples in PUBLISHED:
        entry = Entry(objective, samples)
        found: dict[str, Any] = {"objective": objective, "samples": samples, "published": PUBLISHED[entry]}
        for name in frameworks:
            known = [_finished(run_folder(folder, name, entry.row, seed), passes(stage)) for seed in seeds]
            nlls = [run["nll_nats"] for run in known if run]
            found[name] = statistics.fmean(nlls) if len(nlls) == len(seeds) else None
            if found[name] is not None:
                found[f"{name}_evaluations"] = known
        halves = [found[name] for name in frameworks]
        found["difference"] = halves[1] - halves[0] if len(halves) == 2 and None not in halves else None
        entries.append(found)
    return {"passes": passes(stage), "of": passes(LAST_STAGE), "seeds": list(seeds), "entries": entries}


def run_folder(folder: Path, framework: str, row: str, seed: int) -> Path:
    """Where one run is."""
    return folder / f"{framework}-{row}-seed{seed}"


def markdown(found: Mapping[str, Any], frameworks: Sequence[str]) -> str:
    """The table as Markdown; a missing number is marked so."""
    heads = ["", "published (3,280 passes)", *(f"{FRAMEWORKS[n]} ({found['passes']} passes)" for n in frameworks)]
    if len(frameworks) == 2:
        heads.append("PyTorch - JAX")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for entry in found["entries"]:
        numbers = [entry[name] for name in frameworks] + ([entry["difference"]] if len(frameworks) == 2 else [])
        cells = ["missing" if number is None else f"{number:.2f}" for number in numbers]
        lines.append(
            f"| {entry['objective']}, k = {entry['samples']} | {entry['published']} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines) + "\n"


def _finished(folder: Path, epochs: int) -> dict[str, Any] | None:
    path = folder / "evaluation.json"
    known = json.loads(path.read_text()) if path.exists() else None
    return known if known and known["epoch"] == epochs else None


def base_config(dataset: datasets.Dataset) -> Config:
    """784-[200, 200, tanh]-50 and back, dynamic binarization, batch 20."""
    return dataclasses.replace(PRESETS["iwae"], image_shape=dataset.image_shape)
