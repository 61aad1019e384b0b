"""Experiments over both halves: train models and seeds, pair finished runs, compare and report.

This module is handed the halves; it imports neither framework.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

from vae_common import (
    checkpoints,
    claims,
    datasets,
    figures,
    files,
    latents,
    plotting,
    report,
    runs,
    same_seed,
    trainings,
    twins,
    verdicts,
)
from vae_common.configs import MODELS, Config, InputError, require_each_once
from vae_common.probes import Data

Halves = Mapping[str, ModuleType]
CHECKPOINT_EVERY = 10
MOST_YARDSTICKS = 6
"""Seeds of a half whose latents are held against each other, one against the next."""
KIND = "comparison"
PLAN = "comparison.json"
"""What a comparison was asked for, in its folder: written first, so that it goes on after a stop."""
Group = dict[int, dict[str, Path]]
"""Seed -> framework -> a finished run's folder, all of one model."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a comparison trains and draws."""

    config: Config
    """Of every training, but for model and seed."""
    models: tuple[str, ...]
    seeds: tuple[int, ...]
    parallel_seeds: bool
    """Whether a half trains all seeds of a model in one program."""
    claims: claims.ClaimOptions
    figures: figures.FigureOptions

    def write(self, folder: Path, dataset: datasets.Dataset, command: Sequence[str]) -> None:
        """Keeps the plan in the comparison's folder."""
        values = dataclasses.asdict(self) | {"config": self.config.to_json(), "data": dataset.fingerprint}
        values["claims"]["pilot"] = None if self.claims.pilot is None else str(self.claims.pilot)
        files.write_json(folder / PLAN, {files.KIND: KIND} | values | {"command": list(command)})

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
                config=Config.from_json(held["config"]),
                models=tuple(held["models"]),
                seeds=tuple(held["seeds"]),
                parallel_seeds=bool(held["parallel_seeds"]),
                claims=claims.ClaimOptions(**held["claims"] | {"pilot": pilot and Path(pilot)}),
                figures=figures.FigureOptions(**held["figures"] | options),
            )
            return plan, str(held["data"])
        except (KeyError, TypeError, ValueError) as error:
            said = f"resume: {path} is damaged ({files.reason(error)})"
            raise InputError(f"{said}; start the comparison anew") from error


def choose(
    halves: Halves,
    config: Config,
    dataset: datasets.Dataset,
    models: Sequence[str],
    seeds: Sequence[int],
    wanted: claims.ClaimOptions = claims.ClaimOptions(),
    parallel_seeds: bool = False,
) -> Config:
    """The config that every model and seed of a comparison is trained with.

    Raises InputError where models or seeds are none, repeated, not valid, or too few for what is to be checked,
    where a model's halves are no twins, and for whatever would stop a training.
    """
    require_each_once(models=models, seeds=seeds)
    for model in models:
        for seed in (*seeds, *(seed + shift_of(seeds, wanted.disjoint) for seed in seeds)):
            dataclasses.replace(config, model=model, seed=seed)
        own = dataclasses.replace(config, model=model)
        for half in halves.values():
            trainings.require_trainable(half, own, dataset, len(seeds) if parallel_seeds else 1)
        if len(halves) > 1:
            twins.require_twins(halves, own)
    wanted.require_seeds(len(seeds))
    if wanted.disjoint:
        config = dataclasses.replace(config, training=dataclasses.replace(config.training, randomness="native"))
    wanted.require_randomness(config.training.randomness)
    if wanted.pilot:
        for model in models:
            both = (*seeds, *(seed + shift_of(seeds, wanted.disjoint) for seed in seeds))
            claims.read_pilot(wanted.pilot, dataclasses.replace(config, model=model), both, dataset.fingerprint)
    return config


def shift_of(seeds: Sequence[int], disjoint: bool) -> int:
    """How far the second half's seeds are from the first's, so that none is in both."""
    return max(seeds) + 1 - min(seeds) if disjoint else 0


def train_all(
    halves: Halves,
    config: Config,
    models: Sequence[str],
    seeds: Sequence[int],
    dataset: datasets.Dataset,
    folder: Path,
    command: Sequence[str],
    disjoint: bool = False,
    parallel_seeds: bool = False,
) -> dict[str, Group]:
    """Trains every model and seed in both halves, under `folder`; the halves take turns.

    With `disjoint` the second half's seeds are as many others, so that the halves share nothing; its runs
    are grouped under the first half's seeds all the same. With `parallel_seeds` a half trains all seeds of a
    model in one program. What has been trained there already is not trained again.
    """
    shift = shift_of(seeds, disjoint)
    groups: dict[str, Group] = {}
    for model in models:
        for together in [list(seeds)] if parallel_seeds else [[seed] for seed in seeds]:
            for place, (framework, half) in enumerate(halves.items()):
                own = [dataclasses.replace(config, model=model, seed=seed + place * shift) for seed in together]
                targets = [folder / "runs" / f"{framework}-{model}-seed{config.seed}" for config in own]
                for seed, target in zip(together, targets):
                    groups.setdefault(model, {}).setdefault(seed, {})[framework] = target
                options: dict[str, Any] = {"command": command, "checkpoint_every": CHECKPOINT_EVERY}
                trainings.complete(half, own, dataset, targets, together=parallel_seeds, **options)
    return groups


def group_runs(
    folders: Sequence[Path], frameworks: Sequence[str], wanted: claims.ClaimOptions
) -> tuple[checkpoints.Checkpoint, dict[str, Group]]:
    """Pairs finished runs by model and seed; returns one of their checkpoints too.

    Where the halves' seeds have to be disjoint, runs are paired in the order of their seeds, under the
    first half's.

    Raises:
        InputError: where a run has no partner, where two runs differ in more than model, seed and device,
            or where seeds and randomness are not of the kind that is to be checked. (Whether they saw the same data
            is for who has the data to say: `runs.require_data`.)
    """
    found: dict[str, dict[str, dict[int, Path]]] = {}
    common: tuple[Config, Path] | None = None
    for folder in folders:
        summary, checkpoint = runs.Run(folder).summary(), runs.Run(folder).checkpoint()
        config = checkpoint.config
        comparable = dataclasses.replace(config.comparable, model="ae")
        if common is not None and comparable != common[0]:
            raise InputError(f"runs: {common[1]} and {folder} differ in more than model, seed and device")
        common = common or (comparable, folder)
        of_half = found.setdefault(config.model, {name: {} for name in frameworks})[summary["framework"]]
        if config.seed in of_half:
            raise InputError(f"runs: {folder} and {of_half[config.seed]} are the same half, model and seed")
        of_half[config.seed] = folder
    if common is None:
        raise InputError("runs: received none, expected finished runs' folders")
    wanted.require_randomness(common[0].training.randomness)
    groups = {}
    for model, halves in found.items():
        seeds = {name: sorted(of_half) for name, of_half in halves.items()}
        told = "; ".join(f"{name} has seeds {of_half}" for name, of_half in seeds.items())
        if wanted.disjoint:
            if len({len(of_half) for of_half in seeds.values()}) > 1 or set.intersection(*map(set, seeds.values())):
                raise InputError(f"runs: of {model}, {told}; expected as many of each half, and none in common")
        elif len({tuple(of_half) for of_half in seeds.values()}) > 1:
            raise InputError(f"runs: of {model}, {told}; expected the same")
        wanted.require_seeds(len(seeds[frameworks[0]]))
        rows = zip(*seeds.values())
        groups[model] = {row[0]: {name: halves[name][seed] for name, seed in zip(frameworks, row)} for row in rows}
    return checkpoint, groups


def compare(
    halves: Halves,
    groups: Mapping[str, Group],
    dataset: datasets.Dataset,
    folder: Path,
    options: figures.FigureOptions,
    command: Sequence[str],
    wanted: claims.ClaimOptions = claims.ClaimOptions(),
) -> dict[str, Any]:
    """Writes summary.json, figures/ and report.html into `folder`; returns the summary.

    `wanted` adds claims.py's verdicts.
    """
    models, pictures = {}, {}
    data = dataset.fingerprint
    found: list[claims.Claim] = []
    for model, group in groups.items():
        print(f"comparing {model}", file=sys.stderr)
        models[model], pictures[model], means = _compare_model(halves, model, group, dataset, folder, options)
        losses, described = models[model]["losses_by_seed"], models[model]["latents_of_each_half"]
        config = Config.from_json(models[model]["config"])
        all_seeds = [seed for of_half in models[model]["seeds"].values() for seed in of_half]
        if wanted.check == "paired":
            found += claims.paired(model, losses)
        elif wanted.check == "independent":
            pilot = claims.read_pilot(wanted.pilot, config, all_seeds, data) if wanted.pilot else None
            found += claims.independent(model, losses, described, means, pilot)
            models[model]["losses"] = loss_comparison(losses, paired=False, margins=_margins(found, model))
        elif wanted.check == "lockstep":
            images = datasets.training_images(dataset, config.data.binarization)
            trained = Data(images, datasets.labels_for(dataset.train, config))
            about, drift = same_seed.lockstep(halves, model, config, trained, wanted.lockstep_steps)
            found += about
            models[model]["drift"] = drift
            figure = plotting.drift(drift, f"{MODELS[model].class_name}: the halves apart, step by step")
            pictures[model] |= {"drift": plotting.save(figure, folder / "figures" / model / "drift.png")}
    summary = {
        files.KIND: KIND,
        "command": list(command),
        "dataset": dataset.name,
        "source": dataset.source,
        "data": data,
        "environment": {name: _environment(groups, name) for name in halves},
        "check": wanted.check,
        "found": found_sentences(models),
        "claims": found,
        "models": models,
        "report": str(folder / "report.html"),
        "figures": [str(path) for drawn in pictures.values() for path in drawn.values()],
    }
    report.write(folder / "report.html", summary, pictures)
    runs.Run(folder).write_json(runs.SUMMARY, summary)
    return summary


def found_sentences(models: Mapping[str, Any]) -> list[str]:
    """A sentence that can be quoted on each model's test total; none where one half alone was trained."""
    found = []
    for model, result in models.items():
        verdict = verdicts.from_record(result["losses"]["total_nats"].get("verdict"))
        if verdict is not None:
            found.append(verdicts.sentence(MODELS[model].class_name, "total_nats", verdict))
    return found


def _environment(groups: Mapping[str, Group], framework: str) -> dict[str, str]:
    """Where a half's runs were made, not where they are compared; several places are joined."""
    found = [runs.Run(pair[framework]).summary()["environment"] for group in groups.values() for pair in group.values()]
    keys = dict.fromkeys(key for place in found for key in place)
    return {key: "; ".join(dict.fromkeys(place.get(key, "unknown") for place in found)) for key in keys}


def outcome(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a comparison's summary that its command prints: test losses and where the report is."""
    models = {}
    for model, result in summary["models"].items():
        losses = result["losses"]
        models[model] = {
            half: {term: values[half]["mean"] for term, values in losses.items()} for half in summary["environment"]
        }
        if len(summary["environment"]) == 2:
            models[model]["relative_difference"] = {
                term: values["relative_difference"] for term, values in losses.items()
            }
    judged = [{key: claim[key] for key in ("claim", "model", "verdict")} for claim in summary["claims"]]
    return {"found": summary["found"], "models": models, "claims": judged, "report": summary["report"]}


def loss_comparison(
    tests: Mapping[str, Sequence[Mapping[str, float]]], paired: bool, margins: Mapping[str, float]
) -> dict[str, Any]:
    """The halves' test terms over seeds, term by term.

    Args:
        tests: framework -> one dict of terms per seed, seeds in the same order. One or two frameworks.
        paired: whether the same seeds had the same randomness in both halves.
        margins: of the relative difference, by term.

    Returns:
        For each term: each half's mean and standard deviation over seeds (None with fewer than 2) and,
        of two halves, the difference of the means relative to the first half's (None where that is 0)
        and the `verdict` on it (see verdicts.py; None where the term is always 0).
    """
    compared: dict[str, dict[str, Any]] = {}
    for term in next(iter(tests.values()))[0]:
        values = {name: [terms[term] for terms in of_seeds] for name, of_seeds in tests.items()}
        means = {name: statistics.fmean(v) for name, v in values.items()}
        stds = {name: statistics.stdev(v) if len(v) > 1 else None for name, v in values.items()}
        compared[term] = {name: {"mean": means[name], "std": stds[name]} for name in tests}
        if len(tests) == 2:
            first, second = means.values()
            one, other = values.values()
            compared[term]["relative_difference"] = (second - first) / abs(first) if first else None
            compared[term]["verdict"] = verdicts.as_record(verdicts.judge(one, other, margins[term], paired))
    return compared


def _margins(found: Sequence[claims.Claim], model: str) -> dict[str, float]:
    """The margins that the independent claims on a model's losses were judged by."""
    margins = dict(verdicts.NATIVE_MARGINS)
    for term in margins:
        name = f"independent seeds, {claims.name_of(term)}"
        for claim in found:
            if claim["model"] == model and claim["claim"] == name:
                margins[term] = claim["numbers"]["margin"]
    return margins


def _compare_model(
    halves: Halves,
    model: str,
    group: Group,
    dataset: datasets.Dataset,
    folder: Path,
    options: figures.FigureOptions,
) -> tuple[dict[str, Any], dict[str, Path], list[Any]]:
    seeds = sorted(group)
    results = {name: [runs.Run(group[seed][name]).summary() for seed in seeds] for name in halves}
    saved = {name: [runs.Run(group[seed][name]).checkpoint() for seed in seeds] for name in halves}
    config = saved[next(iter(halves))][0].config
    images = datasets.evaluation_images(dataset, config.data.binarization, "test")[1]
    labels = datasets.labels_for(dataset.test, config)
    encoded, trained = {}, {}
    for name, half in halves.items():
        networks = [runs.load_model(half, checkpoint) for checkpoint in saved[name]]
        encoded[name] = [half.encode(network, images, labels) for network in networks]
        histories = [checkpoint.history for checkpoint in saved[name]]
        trained[checkpoints.FRAMEWORKS[name]] = figures.Trained(
            half, networks[0], histories, saved[name][0].config.seed
        )
    pictures = figures.draw(trained, config, dataset, folder / "figures" / model, options)
    between = [latents.compare(*(e.mean for e in pair)) for pair in zip(*encoded.values())] if len(halves) == 2 else []
    yardstick = {
        name: [latents.compare(a.mean, b.mean) for a, b in pairwise(of[:MOST_YARDSTICKS])]
        for name, of in encoded.items()
    }
    shared = config.training.randomness == "shared"
    margins = verdicts.PAIRED_MARGINS if shared else verdicts.NATIVE_MARGINS
    tests = {name: [result["test"] for result in results[name]] for name in halves}
    result = {
        "config": config.to_json(),
        "seeds": {name: [checkpoint.config.seed for checkpoint in saved[name]] for name in halves},
        "reconstruction_unit": config.reconstruction_unit,
        "kl_unit": config.kl_unit,
        "losses": loss_comparison(tests, shared, margins),
        "losses_by_seed": tests,
        "latents_between_halves": between,
        "latents_between_seeds": yardstick,
        "latents_of_each_half": {
            name: [latents.describe(e.mean, e.log_std, dataset.test.labels, images) for e in encoded[name]]
            for name in halves
        },
        "median_images_per_second": {
            name: [result["median_images_per_second"] for result in results[name]] for name in halves
        },
        "runs": {name: [str(group[seed][name]) for seed in seeds] for name in halves},
    }
    return result, pictures, [e.mean for name in halves for e in encoded[name]]
