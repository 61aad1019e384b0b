"""A sweep: every combination of some config fields' values, with every seed, in some halves.

Each run is a folder of runs/folder.py; what has finished is skipped, what was stopped goes on. Its table and figure
are made of the runs' summaries.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vae_common import files
from vae_common.backend import Halves
from vae_common.config import Config
from vae_common.config.registry import MODELS
from vae_common.data.splits import Dataset
from vae_common.errors import InputError, shown
from vae_common.runs import trainer
from vae_common.runs.epoch_records import TERMS
from vae_common.runs.folder import Run
from vae_common.studies.launchers import Job

KIND = "sweep"
DIVERGED = "diverged.json"
"""Stands in a run's folder where its loss stopped being finite."""

Values = tuple[tuple[str, Any], ...]
"""One point of the sweep: dotted field and value."""


def points(vary: Sequence[str], base: Config, images: int = 0) -> list[Values]:
    """Every combination of specifications, such as `loss.beta=1,4` and `network.hidden=[512],[512,256]`, on that many
    training images.

    Raises InputError where a field is unknown, a value is none for it, one combination is refused by the config, or two
    are the same experiment: it would be counted twice.
    """
    axes = []
    for text in vary:
        field, equals, values = text.partition("=")
        if not equals or not values:
            raise InputError(f"vary: received {shown(text)}, expected field=value,value such as loss.beta=1,4")
        axes.append([(field, value) for value in _parsed(text, values)])
    fields = [axis[0][0] for axis in axes]
    if len(set(fields)) < len(fields):
        raise InputError(f"vary: received {', '.join(fields)}, expected each field once")
    found = list(itertools.product(*axes))
    known: dict[Config, Values] = {}
    for point in found:
        config = config_at(base, point, images)
        if config in known:
            both = " and ".join(
                ", ".join(f"{field}={json.dumps(v)}" for field, v in of) for of in (known[config], point)
            )
            raise InputError(f"vary: received {both}, which are one experiment; expected each once")
        known[config] = point
    return found


def config_at(base: Config, point: Values, images: int) -> Config:
    """The config of one point, on that many training images."""
    model = dict(point).get("model")
    values = (base.of_model(model) if model in MODELS else base).to_json() | {"train_images": images}
    for field, value in point:
        *parts, name = field.split(".")
        if field in ("seed", "image_shape") or (parts == ["data"] and name != "binarization"):
            raise InputError(f"vary: received {shown(field)}, expected a field other than the seed and the data")
        place: Any = values
        for part in parts:
            place = place.get(part) if isinstance(place, dict) else None
        if not isinstance(place, dict) or name not in place:
            raise InputError(
                f"vary: received {shown(field)}, expected a field of the config such as loss.beta or model"
            )
        place[name] = value
    return Config.from_json(values)


def name_of(point: Values) -> str:
    """A folder's name: `beta=4-latent_dim=8`."""
    words = (f"{field.rpartition('.')[2]}={json.dumps(value)}" for field, value in point)
    return re.sub(r"[^\w.=+-]+", "_", "-".join(words)).replace('"', "") or "base"


def check(
    halves: Halves,
    base: Config,
    vary: Sequence[str],
    seeds: Sequence[int],
    dataset: Dataset,
    folder: Path,
    ensemble: bool = False,
) -> None:
    """Raises InputError for whatever would stop the sweep later; nothing is written."""
    for name, half in halves.items():
        known: dict[Any, Values] = {}
        for point in points(vary, base, len(dataset.train)):
            for seed in seeds:
                config = dataclasses.replace(config_at(base, point, len(dataset.train)), seed=seed)
            trainer.require_trainable(half, config, dataset, len(seeds) if ensemble else 1)
            same = config.comparable, str(half.device_for(config)), half.execution_for(config)
            if same in known:
                raise InputError(f"vary: received {dict(known[same])} and {dict(point)}, one experiment in {name}")
            known[same] = point
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output: {folder} exists and is no folder; choose another")
    if folder.is_dir():
        files.require_writable(folder / "summary.json", "output", KIND, ("points",))
        others = ["config.json", "comparison.json", "table.json"]
        if not (folder / "summary.json").exists():
            others += ["table.csv", "sweep.png"]
        held = [name for name in others if (folder / name).exists()]
        if held:
            raise InputError(f"output: {folder} holds {held[0]}, which no sweep wrote; choose another folder")


def train(
    halves: Halves,
    base: Config,
    vary: Sequence[str],
    seeds: Sequence[int],
    dataset: Dataset,
    folder: Path,
    *,
    command: Sequence[str] = (),
    ensemble: bool = False,
    launch: Callable[[Sequence[Job]], None] | None = None,
) -> list[dict[str, Any]]:
    """Trains what has not finished yet; one row per run, in the sweep's order.

    With `ensemble` the seeds of a point that has not been begun are trained in one program. A run whose loss stopped
    being finite is a row without losses, and is not tried again. `launch` has the runs trained elsewhere first, of what
    has not finished. InputError says what is refused, before anything is written.
    """
    check(halves, base, vary, seeds, dataset, folder, ensemble)
    if launch is not None:
        launch(_unfinished(halves, base, vary, seeds, dataset, folder, command, ensemble))
    rows = []
    for framework, point, configs, folders in _groups(halves, base, vary, seeds, dataset, folder):
        options: dict[str, Any] = {"command": command, "together": ensemble}
        trainer.complete(halves[framework], configs, dataset, folders, given_up=DIVERGED, **options)
        rows += [_row(framework, point, config, place) for config, place in zip(configs, folders)]
    return rows


def _groups(
    halves: Halves, base: Config, vary: Sequence[str], seeds: Sequence[int], dataset: Dataset, folder: Path
) -> Iterator[tuple[str, Values, list[Config], list[Path]]]:
    """In the sweep's order: half, point, and for each seed its config and its run's folder."""
    for point in points(vary, base, len(dataset.train)):
        for framework in halves:
            configs = [dataclasses.replace(config_at(base, point, len(dataset.train)), seed=seed) for seed in seeds]
            yield framework, point, configs, [folder / f"{framework}-{name_of(point)}-seed{seed}" for seed in seeds]


def _unfinished(
    halves: Halves,
    base: Config,
    vary: Sequence[str],
    seeds: Sequence[int],
    dataset: Dataset,
    folder: Path,
    command: Sequence[str],
    ensemble: bool,
) -> list[Job]:
    """A job for each run that has not finished, or for all seeds of a point that are trained in one program."""
    jobs = []
    for framework, _, configs, folders in _groups(halves, base, vary, seeds, dataset, folder):
        left = [of for of in zip(configs, folders) if not Run(of[1]).is_finished and not (of[1] / DIVERGED).exists()]
        for group in [left] if ensemble and left else [[of] for of in left]:
            values = tuple(config.to_json() for config, _ in group)
            places = tuple(str(place.absolute()) for _, place in group)
            jobs.append(Job(framework, values, places, tuple(command), ensemble, DIVERGED))
    return jobs


def _row(framework: str, point: Values, config: Config, folder: Path) -> dict[str, Any]:
    finished = not (folder / DIVERGED).exists()
    summary = Run(folder).summary() if finished else {"test": dict.fromkeys(TERMS)}
    row = {"framework": framework, **dict(point), "seed": config.seed, "epochs": config.training.epochs}
    row |= {"diverged": not finished, "reconstruction_unit": config.reconstruction_unit}
    row |= {"is_likelihood": config.is_likelihood} | summary["test"]
    return row | {"images_per_second": summary.get("median_images_per_second"), "folder": str(folder)}


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line per run."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def by_point(rows: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> list[dict[str, Any]]:
    """Rows averaged over the seeds that did not diverge: the values, the half, what the reconstruction is, and each
    term's mean and standard deviation over seeds."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["framework"], *(json.dumps(row[field]) for field in fields)), []).append(row)
    found = []
    for own in groups.values():
        done = [row for row in own if not row["diverged"]]
        entry = {key: own[0][key] for key in ("framework", *fields, "reconstruction_unit", "is_likelihood")}
        entry |= {"seeds": len(done), "diverged": len(own) - len(done)}
        for term in TERMS:
            values = [row[term] for row in done]
            entry[term] = statistics.fmean(values) if values else None
            entry[f"{term}_std"] = statistics.stdev(values) if len(values) > 1 else None
        found.append(entry)
    return found


def _parsed(text: str, values: str) -> list[Any]:
    """The values of a specification: JSON, or words; InputError for what no field holds."""
    found: list[Any]
    try:
        found = files.parse_json(f"[{values}]")
    except ValueError:
        found = values.split(",")
    for value in found:
        if isinstance(value, dict) or value == "":
            raise InputError(f"vary: received {shown(text)}, expected numbers, words or lists such as [512,256]")
    return found
