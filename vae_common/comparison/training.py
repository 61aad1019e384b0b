"""The runs that a comparison is made of: trained here, or finished ones paired by model and seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vae_common.backend import Halves
from vae_common.comparison.options import ClaimOptions
from vae_common.comparison.over_seeds import read_pilot
from vae_common.comparison.plan import Plan
from vae_common.config import Config
from vae_common.config.checks import require_each_once
from vae_common.config.experiment import same_but_for_model
from vae_common.conformance import signatures
from vae_common.data.splits import Dataset
from vae_common.errors import InputError
from vae_common.randomness import steps_per_epoch
from vae_common.runs import trainer
from vae_common.runs.folder import Run

CHECKPOINT_EVERY = 10
Group = dict[int, dict[str, Path]]
"""Seed -> framework -> a finished run's folder, all of one model."""


def checked(halves: Halves, plan: Plan, dataset: Dataset) -> Plan:
    """The plan with the config that every model and seed is trained with; nothing is written.

    Raises InputError where models or seeds are none, repeated, not valid, or too few for what is to be checked,
    where a model's halves differ in their signatures, and for whatever would stop a training.
    """
    require_each_once(models=plan.models, seeds=plan.seeds)
    wanted = plan.claims
    for own in plan.configs:
        for seed in plan.all_seeds:
            dataclasses.replace(own, seed=seed)
        for half in halves.values():
            trainer.require_trainable(half, own, dataset, len(plan.seeds) if plan.ensemble else 1)
        if len(halves) > 1:
            signatures.require_same_signatures(halves, own)
    wanted.require_seeds(len(plan.seeds))
    configs = plan.configs
    if wanted.disjoint:
        configs = tuple(
            dataclasses.replace(own, training=dataclasses.replace(own.training, randomness="native")) for own in configs
        )
    for own in configs:
        wanted.require_randomness(own.training.randomness)
        if wanted.check == "lockstep":  # on what is held of a stream
            steps_per_epoch(len(dataset.train.shown), own.training.batch_size)
        if wanted.pilot:
            read_pilot(wanted.pilot, own, plan.all_seeds, dataset.fingerprint)
    return dataclasses.replace(plan, configs=configs)


def train_all(halves: Halves, plan: Plan, dataset: Dataset, folder: Path) -> dict[str, Group]:
    """Trains every model and seed in both halves, under `folder`; the halves take turns.

    Where nothing may be shared the second half's seeds are as many others; its runs are grouped under the first half's
    seeds all the same. What has been trained there already is not trained again.
    """
    groups: dict[str, Group] = {}
    for config in plan.configs:
        model = config.model
        for together in [list(plan.seeds)] if plan.ensemble else [[seed] for seed in plan.seeds]:
            for place, (framework, half) in enumerate(halves.items()):
                own = [dataclasses.replace(config, seed=s + place * plan.shift) for s in together]
                targets = [folder / "runs" / f"{framework}-{model}-seed{config.seed}" for config in own]
                for seed, target in zip(together, targets):
                    groups.setdefault(model, {}).setdefault(seed, {})[framework] = target
                options: dict[str, Any] = {"command": plan.command, "checkpoint_every": CHECKPOINT_EVERY}
                trainer.complete(half, own, dataset, targets, together=plan.ensemble, **options)
    return groups


def group_runs(
    folders: Sequence[Path], frameworks: Sequence[str], wanted: ClaimOptions
) -> tuple[Config, dict[str, Group], dict[Path, str]]:
    """Pairs finished runs by model and seed; returns the config of one of them, and each one's fingerprint of its data.

    Where the halves' seeds have to be disjoint, runs are paired in the order of their seeds, under the
    first half's.

    Raises:
        InputError: where a run has no partner, where two runs differ in more than model, seed and device,
            or where seeds and randomness are not of the kind that is to be checked. (Whether they saw the same data
            is for who has the data to say: `folder.require_data`.)
    """
    found: dict[str, dict[str, dict[int, Path]]] = {}
    data: dict[Path, str] = {}
    common: list[tuple[Config, Path]] = []
    for folder in folders:
        checkpoint = Run(folder).checkpoint()
        summary, config = Run(folder).summary(checkpoint), checkpoint.config
        data[folder] = checkpoint.data
        for before, place in common:
            if not same_but_for_model(before, config.comparable):
                raise InputError(f"runs: {place} and {folder} differ in more than model, seed and device")
        common.append((config.comparable, folder))
        of_half = found.setdefault(config.model, {name: {} for name in frameworks})[summary["framework"]]
        if config.seed in of_half:
            raise InputError(f"runs: {folder} and {of_half[config.seed]} are the same half, model and seed")
        of_half[config.seed] = folder
    if not common:
        raise InputError("runs: received none, expected finished runs' folders")
    wanted.require_randomness(common[0][0].training.randomness)
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
    return checkpoint.config, groups, data
