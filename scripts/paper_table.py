"""Reproduces table 1 of Importance Weighted Autoencoders (Burda et al. 2016), one stochastic layer, in both halves.

python -m scripts.paper_table --stages 3 --rows k1 vae-k5 iwae-k5
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.halves import Framework, load_halves
from vae_common import datasets, evaluations, files, paper_table, stopping, trainings
from vae_common.command_line import run
from vae_common.configs import PRESETS, InputError, require_count, require_each_once, require_seed


@dataclass(frozen=True)
class Arguments:
    """Reproduces table 1 of Importance Weighted Autoencoders; goes on where an earlier call stopped."""

    frameworks: tuple[Framework, ...] = ("jax", "torch")
    rows: tuple[paper_table.Row, ...] = ("k1", "vae-k5", "iwae-k5", "vae-k50", "iwae-k50")
    stages: int = 7
    """The last stage, 0 to 7; after stage i there were (3^(i+1) - 1) / 2 passes."""
    seeds: tuple[int, ...] = (0,)
    """Trained in one program."""
    draws: int = 5000
    """Posterior draws per test image of the likelihood."""
    adam: paper_table.Adam = "paper"
    """paper: beta1 0.9; code: the authors' code, beta1 0.99 and a second moment that starts at 1. Both: eps 1e-4."""
    output: Path = Path("runs/paper-table")
    data_dir: str = "data"
    manual_dir: str | None = None


def main(arguments: Arguments) -> dict[str, Any]:
    require_each_once(frameworks=arguments.frameworks, rows=arguments.rows, seeds=arguments.seeds)
    require_count("stages", arguments.stages, 0, paper_table.LAST_STAGE)
    require_count("draws", arguments.draws, 1, evaluations.MOST_DRAWS)
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
    base = paper_table.base_config(dataset, **source)
    command = ["python", "-m", "scripts.paper_table", *sys.argv[1:]]
    stages, seeds, draws = range(arguments.stages + 1), arguments.seeds, arguments.draws
    for half in halves.values():
        trainings.require_trainable(half, base, dataset, len(seeds))
    for row in arguments.rows:
        for name, half in halves.items():
            folders = {seed: paper_table.run_folder(place, name, row, seed) for seed in seeds}
            with stopping.mend(lambda: "the same command again"):
                paper_table.train_row(half, base, row, stages, arguments.adam, dataset, folders, draws, command)
            found = paper_table.table(place, seeds, arguments.stages, draws)
            files.write_json(place / "table.json", {files.KIND: paper_table.KIND} | found | {"command": command})
            files.write_atomically(place / "table.md", paper_table.markdown(found).encode())
    print(paper_table.markdown(found))
    return {"table": str(place / "table.md"), "passes": found["passes"]}


if __name__ == "__main__":
    run(Arguments, main)
