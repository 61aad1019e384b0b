"""Reproduces table 1 of Importance Weighted Autoencoders (Burda et al. 2016), one stochastic layer, in both halves.

python -m scripts.paper_table --stages 3 --rows k1 vae-k5 iwae-k5
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vae_common import files, stopping
from vae_common.backend import Framework, installed, load_halves
from vae_common.cli.command_line import called
from vae_common.config import PRESETS
from vae_common.config.checks import require_count, require_each_once, require_seed
from vae_common.errors import InputError
from vae_common.studies.paper_schedule import LAST_STAGE, AdamVariant, Row, base_config


@dataclass(frozen=True)
class Arguments:
    """Reproduces table 1 of Importance Weighted Autoencoders; goes on where an earlier call stopped."""

    frameworks: tuple[Framework, ...] = field(default_factory=installed)
    rows: tuple[Row, ...] = ("k1", "vae-k5", "iwae-k5", "vae-k50", "iwae-k50")
    stages: int = 7
    """The last stage, 0 to 7; after stage i there were (3^(i+1) - 1) / 2 passes."""
    seeds: tuple[int, ...] = (0,)
    """Trained in one program."""
    samples: int = 5000
    """Posterior samples per test image of the likelihood."""
    adam: AdamVariant = "paper"
    """paper: beta1 0.9; code: the authors' code, beta1 0.99 and a second moment that starts at 1. Both: eps 1e-4."""
    output: Path = Path("runs/paper-table")
    data_dir: str = "data"
    manual_dir: str | None = None


def main(arguments: Arguments) -> dict[str, Any]:
    from vae_common.data import datasets
    from vae_common.runs import evaluation, trainer
    from vae_common.studies import paper_table

    require_each_once(frameworks=arguments.frameworks, rows=arguments.rows, seeds=arguments.seeds)
    require_count("stages", arguments.stages, 0, LAST_STAGE)
    require_count("samples", arguments.samples, 1, evaluation.MOST_SAMPLES)
    for seed in arguments.seeds:
        require_seed(seed)
    place = arguments.output / arguments.adam
    if place.is_dir():
        files.require_writable(place / "table.json", "output", paper_table.KIND, ("entries",))
        if (place / "table.md").exists() and not (place / "table.json").exists():
            raise InputError(f"output: {place} holds a table.md that no paper table wrote; choose another")
    halves = load_halves(*arguments.frameworks)
    source: dict[str, Any] = {"data_dir": arguments.data_dir, "manual_dir": arguments.manual_dir}
    dataset = datasets.load("mnist", **source, progress=True).hold_out(PRESETS["iwae"].data.validation_size)
    study = paper_table.Study(
        folder=place,
        base=base_config(dataset.image_shape, **source),
        dataset=dataset,
        adam=arguments.adam,
        stage=arguments.stages,
        seeds=arguments.seeds,
        samples=arguments.samples,
        command=(*called("paper_table"), *sys.argv[1:]),
    )
    for half in halves.values():
        trainer.require_trainable(half, study.base, dataset, len(study.seeds))
    for row in arguments.rows:
        for half in halves.values():
            with stopping.mend(lambda: "the same command again"):
                paper_table.train_row(half, study, row)
            found = paper_table.table(study)
            record = {files.KIND: paper_table.KIND} | found | {"command": list(study.command)}
            files.write_json(place / "table.json", record)
            files.write_atomically(place / "table.md", paper_table.markdown(found).encode())
    print(paper_table.markdown(found))
    return {"table": str(place / "table.md"), "passes": found["passes"]}
