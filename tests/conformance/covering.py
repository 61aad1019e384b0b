"""Configs that try every two options together: a covering array over all that a config turns on.

Every pair of values that a config allows is in at least one row; the rows are far fewer than all combinations.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, cycle, islice
from typing import Any

from allpairspy import AllPairs

from tests.configs import own_fields
from tests.conformance.suite import IMAGES, TINY
from vae_common.config import Config, DataConfig, LossConfig, NetworkConfig, OptimizerConfig, TrainingConfig
from vae_common.config.objectives import OBJECTIVES
from vae_common.config.parts import Activation, Binarization, Initializer, PosteriorHead, Reconstruction
from vae_common.config.registry import MODELS
from vae_common.errors import InputError

# Few pixels: an importance weight is as exact as its logarithm, whose last place grows with the nats of the image.
SHAPE = (8, 4, 1)
OPTIMIZERS = {
    "plain": OptimizerConfig(),
    "clipped, cosine, averaged": OptimizerConfig(clip_norm=1.0, schedule="cosine", decay_steps=30, average=0.9),
    "warm-up, exponential": OptimizerConfig(warmup_steps=7, schedule="exponential", decay_steps=9),
    "the IWAE code's": OptimizerConfig(beta1=0.99, eps=1e-4, second_moment_start=1.0),
}
# What is first in each list goes with everything.
OPTIONS: dict[str, Sequence[Any]] = {
    "model": ["vae", *(name for name in MODELS if name != "vae")],
    "reconstruction": typing.get_args(Reconstruction),
    "activation": typing.get_args(Activation),
    "objective": list(OBJECTIVES),
    "channels": [(), (8, 6)],
    "hidden": [(12, 12), (), (9, 8, 7)],
    "kl": ["gaussian", "sampled", "tutorial"],
    "samples": [1, 3],
    "beta": [1.0, 12.5],
    "free_bits": [0.0, 0.1],
    "kl_warmup": [0, 30],
    "reduction": ["mean", "sum"],
    "posterior_head": typing.get_args(PosteriorHead),
    "classes": [0, 4],
    "initializer": typing.get_args(Initializer),
    "output_bias": ["initializer", "data_mean"],
    "binarization": typing.get_args(Binarization),
    "optimizer": list(OPTIMIZERS),
}
NETWORK = ("channels", "hidden", "activation", "posterior_head", "classes", "initializer", "output_bias")
ANYBODYS = ("activation", "initializer")
LOSS = ("reconstruction", "objective", "kl", "samples", "beta", "free_bits", "kl_warmup", "reduction")
Row = Mapping[str, Any]


def make(row: Row, precision: Any = "float64") -> Config:
    """The row's config, what it does not say at its first value; InputError where it is refused."""
    whole = {name: row.get(name, values[0]) for name, values in OPTIONS.items()}
    # What the model does not read is left out where the row does not ask for it, and refused where it does.
    own = MODELS[whole["model"]].own_fields
    network = {name: whole[name] for name in NETWORK if name in own or name in ANYBODYS or name in row}
    network |= {"block_channels": (4,)} if "block_channels" in own else {}
    return Config(
        model=whole["model"],
        image_shape=SHAPE,
        train_images=IMAGES,
        network=NetworkConfig(**own_fields(whole["model"], TINY) | network),
        loss=LossConfig(**{name: whole[name] for name in LOSS}),
        data=DataConfig(binarization=whole["binarization"]),
        training=TrainingConfig(precision=precision, batch_size=9),
        optimizer=OPTIMIZERS[whole["optimizer"]],
    )


def allowed(row: Row) -> bool:
    """Whether the config takes these values together."""
    try:
        make(row)
        return True
    except InputError:
        return False


def pairs(row: Row) -> Iterator[tuple[tuple[str, Any], tuple[str, Any]]]:
    """Every two values of a row."""
    yield from combinations(row.items(), 2)


def covering(options: Mapping[str, Sequence[Any]]) -> list[Row]:
    """Rows that hold every allowed pair of values."""
    names = list(options)
    found = AllPairs(list(options.values()), filter_func=lambda values: allowed(dict(zip(names, values))))
    rows: list[Row] = [dict(zip(names, row)) for row in found]
    left = missing(rows, options)
    while left:  # allpairspy gives up on some that its order makes impossible
        row: dict[str, Any] = {}
        for pair in left:
            if all(row.get(name, value) == value for name, value in pair) and allowed(row | dict(pair)):
                row |= dict(pair)
        rows.append({name: row.get(name, values[0]) for name, values in options.items()})
        left = missing(rows, options)
    return rows


def missing(rows: Sequence[Row], options: Mapping[str, Sequence[Any]]) -> list[tuple[tuple[str, Any], ...]]:
    """The allowed pairs that no row holds."""
    there = {pair for row in rows for pair in pairs(row)}
    every = [((a, x), (b, y)) for a, b in combinations(options, 2) for x in options[a] for y in options[b]]
    return [pair for pair in every if pair not in there and allowed(dict(pair))]


def each_once(options: Mapping[str, Sequence[Any]], rows: int) -> list[Row]:
    """Rows that hold every value of each option, but not every pair."""
    columns = {name: list(islice(cycle(values), rows)) for name, values in options.items()}
    return [{name: columns[name][place] for name in options} for place in range(rows)]


def possible(row: Row) -> Row:
    """The row without what does not go with what stands before it."""
    kept: dict[str, Any] = {}
    for name, value in row.items():
        kept |= {name: value} if allowed(kept | {name: value}) else {}
    return kept


def name_of(row: Row) -> str:
    """The row without what stands at its first value, its model always."""
    own = [str(value) for name, value in row.items() if value != OPTIONS[name][0] and name != "model"]
    return " ".join([row["model"], *own]).replace("(", "").replace(")", "").replace(",", "")


DEEP = ("ladder_vae", "kl_autoencoder")
"""Their programs take long to compile: what they read is tried in turn, in two rows each. (All else that they have:
test_ladder.py, test_diffusers.py.)"""
COMMON = OPTIONS | {"model": [name for name in OPTIONS["model"] if name not in DEEP]}
ROWS = [
    *covering(COMMON),
    *(possible({"model": model} | row) for model in DEEP for row in each_once({**OPTIONS, "model": [model]}, 2)),
]
"""Every pair of options of the common models, and some of the deep ones."""
MAIN = {name: COMMON[name] for name in ("model", "objective", "channels")}
"""What is tried in float32, where rounding hides more: these in pairs, all else in turn."""
