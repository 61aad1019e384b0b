"""Table 1 of Importance Weighted Autoencoders (Burda, Grosse and Salakhutdinov 2016), one stochastic layer, MNIST.

Eight stages i = 0 to 7 of 3^i passes each with learning rate 1e-3 * 10^(-i/7), rounded as the authors round it. A row
is one objective and number of samples k; VAE and IWAE with k = 1 are the same model, trained once. Each run is a folder
of runs/folder.py that goes on from its last checkpoint; what a stage's model is worth is written beside it once known.

As in the authors' code (github.com/yburda/iwae) the gradient is the sum over the batch, not its mean: that decides
what an eps of 1e-4 does. The VAE's KL is estimated from its samples, as there. Unlike there, Adam's eps is added after
the bias correction, a step uses the moments that hold its own gradient, and every pass has an order of its own.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vae_common import files
from vae_common.backend import FRAMEWORKS, Half, name_of
from vae_common.config import Config
from vae_common.data.splits import Dataset
from vae_common.errors import InputError
from vae_common.runs import evaluation, resume, trainer
from vae_common.runs.folder import Run, require_data
from vae_common.studies.paper_schedule import LAST_STAGE, config_of, total_epochs

KIND = "paper table"
PUBLISHED = {
    ("VAE", 1): 86.76, ("VAE", 5): 86.47, ("VAE", 50): 86.35,
    ("IWAE", 1): 86.76, ("IWAE", 5): 85.54, ("IWAE", 50): 84.78,
}  # fmt: skip
"""NLL in nats from 5,000 samples, all eight stages (table 1)."""


class Entry(NamedTuple):
    """One number of the table."""

    objective: str
    samples: int

    @property
    def row(self) -> str:
        """The run that it comes from."""
        return "k1" if self.samples == 1 else f"{self.objective.lower()}-k{self.samples}"


@dataclasses.dataclass(frozen=True)
class Study:
    """What is trained and evaluated, and where its runs are."""

    folder: Path
    base: Config
    """What every row has, but for its objective."""
    dataset: Dataset
    adam: str
    stage: int
    """The last one."""
    seeds: tuple[int, ...]
    samples: int
    """Posterior samples per test image of the likelihood."""
    command: tuple[str, ...]


def train_row(half: Half, study: Study, row: str) -> None:
    """Trains a row's seeds, in one program, from where they stand to the last stage; and evaluates.

    Whatever stands on the disk is gone on with; a stage's checkpoint is at its end, or at every tenth of it.
    """
    folders = [run_folder(study.folder, name_of(half), row, seed) for seed in study.seeds]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for stage in range(study.stage + 1):
        _train_stage(half, study, row, stage, folders)
    for folder in folders:
        estimate(half, folder, study.dataset, study.samples)


def _train_stage(half: Half, study: Study, row: str, stage: int, folders: Sequence[Path]) -> None:
    own = config_of(study.base, row, stage, study.adam)
    configs = [dataclasses.replace(own, seed=seed) for seed in study.seeds]
    apart = ("epochs", "learning_rate")  # a stage's
    points = [resume.begun(folder, config, apart) for folder, config in zip(folders, configs)]
    epochs = [0 if point is None else point.epoch for point in points]
    common: Any = {"command": study.command, "checkpoint_every": max(1, 3**stage // 10)}
    if min(epochs) == max(epochs) < total_epochs(stage) and len(configs) > 1:
        trainer.train_seeds(half, configs, study.dataset, folders, resumes=points, **common)
        return
    for config, folder, point, epoch in zip(configs, folders, points, epochs):
        if epoch < total_epochs(stage):  # one seed, or seeds that were stopped apart
            trainer.train(half, config, study.dataset, folder, resume=point, **common)


def estimate(half: Half, folder: Path, dataset: Dataset, samples: int) -> dict[str, Any]:
    """The test NLL of a run's last checkpoint, from its file where that is there already."""
    checkpoint = Run(folder).checkpoint()
    require_data(folder, checkpoint.data, dataset)
    known = _estimated(folder, checkpoint.epoch, samples)
    if known:
        return known
    print(f"estimating {folder.name} after {checkpoint.epoch} passes", file=sys.stderr)
    found = evaluation.evaluate(half, checkpoint, dataset, samples)
    Run(folder).write_json(_file(checkpoint.epoch), found)
    return found


def table(study: Study) -> dict[str, Any]:
    """Every entry with what was published and what each half's finished runs found from as many samples.

    None where a run is missing, or was estimated otherwise.
    """
    folder, seeds, stage, samples = study.folder, study.seeds, study.stage, study.samples
    entries = []
    for objective, k in PUBLISHED:
        entry = Entry(objective, k)
        found: dict[str, Any] = {"objective": objective, "samples": k, "published": PUBLISHED[entry]}
        for name in FRAMEWORKS:
            places = [run_folder(folder, name, entry.row, seed) for seed in seeds]
            known = [_estimated(place, total_epochs(stage), samples) for place in places]
            nlls = [run["nll_nats"] for run in known if run]
            found[name] = statistics.fmean(nlls) if len(nlls) == len(seeds) else None
            if found[name] is not None:
                found[f"{name}_evaluations"] = known
        both = found["jax"] is not None and found["torch"] is not None
        found["difference"] = found["torch"] - found["jax"] if both else None
        entries.append(found)
    done = {"passes": total_epochs(stage), "of": total_epochs(LAST_STAGE), "samples": samples, "seeds": list(seeds)}
    return done | {"entries": entries}


def run_folder(folder: Path, framework: str, row: str, seed: int) -> Path:
    """Where one run is."""
    return folder / f"{framework}-{row}-seed{seed}"


def markdown(found: Mapping[str, Any]) -> str:
    """The table as Markdown; a missing number is marked so."""
    halves = [f"{said} ({found['passes']} passes)" for said in FRAMEWORKS.values()]
    heads = ["", "published (3,280 passes)", *halves, "PyTorch - JAX"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for entry in found["entries"]:
        numbers = [entry[name] for name in (*FRAMEWORKS, "difference")]
        cells = ["missing" if number is None else f"{number:.2f}" for number in numbers]
        lines.append(
            f"| {entry['objective']}, k = {entry['samples']} | {entry['published']} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines) + "\n"


def _file(epoch: int) -> str:
    """A run's file with what its model was worth after that many passes."""
    return f"nll-after-{epoch}-passes.json"


def _estimated(folder: Path, epoch: int, samples: int) -> dict[str, Any] | None:
    path = folder / _file(epoch)
    try:
        known = files.read_json(path, "estimate")
        return known if known.get("samples", known.get("draws")) == samples else None
    except (InputError, KeyError, TypeError):  # none, or none that can be read: estimated anew
        return None
