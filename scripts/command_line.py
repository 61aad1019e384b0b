"""What every script shares: flags from config fields, one line for bad input, JSON as the last line."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar

import tyro

from vae_common import datasets
from vae_common.configs import (
    MODELS,
    PRESETS,
    Config,
    DataConfig,
    InputError,
    LossConfig,
    NetworkConfig,
    TrainingConfig,
)
from vae_common.randomness import steps_per_epoch
from vae_common.runs import NonFiniteLoss

Framework = Literal["jax", "torch"]
if TYPE_CHECKING:
    ModelName: TypeAlias = str
    Preset: TypeAlias = str
else:  # the registries decide
    ModelName, Preset = Literal[tuple(MODELS)], Literal[tuple(PRESETS)]
PARTS = ("network", "loss", "data", "training")
Flat = tyro.conf.arg(name="")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Experiment:
    """The flags of every script that trains: the fields of the config's parts."""

    preset: Preset = "default"
    """Where the other flags start from."""
    network: Annotated[NetworkConfig, Flat] = field(default_factory=NetworkConfig)
    loss: Annotated[LossConfig, Flat] = field(default_factory=LossConfig)
    data: Annotated[DataConfig, Flat] = field(default_factory=DataConfig)
    training: Annotated[TrainingConfig, Flat] = field(default_factory=TrainingConfig)

    def load(self, halves: Mapping[str, ModuleType]) -> tuple[Config, datasets.Dataset]:
        """The config of model `vae` and seed 0 for this data, and the data.

        Raises InputError for whatever would stop a training later: nothing has been written yet.
        """
        dataset = load_dataset(self.data)
        steps_per_epoch(len(dataset.train), self.training.batch_size)
        for half in halves.values():
            half.select_device(self.training.device)
        parts: dict[str, Any] = {name: getattr(self, name) for name in PARTS}
        return Config(image_shape=dataset.image_shape, **parts), dataset


def load_dataset(data: DataConfig) -> datasets.Dataset:
    """The config's set, its validation split held out."""
    dataset = datasets.load(data.dataset, data_dir=data.data_dir, manual_dir=data.manual_dir, progress=True)
    return dataset.hold_out(data.validation_size)


def load_halves(*frameworks: str) -> dict[str, ModuleType]:
    """The halves by name; a framework that is not asked for is not imported."""
    return {name: importlib.import_module(f"{name}_vae") for name in frameworks}


def run(
    arguments: Callable[..., _T],
    main: Callable[[_T], dict[str, Any]],
    status: Callable[[dict[str, Any]], int] = lambda result: 0,
) -> None:
    """Parses the flags, runs the script, prints its result as one line of JSON, exits with its status.

    Exit status 2 and one line on standard error for bad input, 1 for a training that failed.
    """
    try:
        result = main(parse(arguments, sys.argv[1:]))
        print(json.dumps(result))
        sys.exit(status(result))
    except (InputError, OSError) as error:
        _fail(str(error), 2)
    except NonFiniteLoss as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("interrupted; what was saved can be resumed or deleted", 130)


def parse(arguments: Callable[..., _T], flags: Sequence[str]) -> _T:
    """The script's arguments; raises InputError with tyro's explanation in one line."""
    default: Any = arguments()
    if hasattr(default, "experiment"):
        name = value_of("--preset", flags) or default.experiment.preset
        preset = PRESETS.get(name, PRESETS["default"])  # tyro refuses an unknown name itself
        parts = {name: getattr(preset, name) for name in PARTS}
        default = dataclasses.replace(default, experiment=Experiment(default.experiment.preset, **parts))
    explanation = io.StringIO()
    try:
        with contextlib.redirect_stderr(explanation):
            return tyro.cli(arguments, args=list(flags), default=default)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(_one_line(explanation.getvalue())) from None


def value_of(flag: str, flags: Sequence[str]) -> str | None:
    """What a flag was given on the command line, or None where it was not."""
    for i, item in enumerate(flags):
        if item == flag and i + 1 < len(flags):
            return flags[i + 1]
        if item.startswith(f"{flag}="):
            return item.partition("=")[2]
    return None


def _one_line(box: str) -> str:
    """tyro's framed explanation without its frame."""
    words = (line.strip("│ ") for line in box.splitlines() if line.startswith("│") and "────" not in line)
    return " ".join(" ".join(words).split())


def _fail(message: str, status: int) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
