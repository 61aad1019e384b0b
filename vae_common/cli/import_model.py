"""Makes a run of a folder that diffusers' AutoencoderKL wrote: to be trained on, evaluated, plotted, in either half.

twin-vae import stable-diffusion/vae --dataset photos --image-size 64 --output runs/vae
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from vae_common import files
from vae_common.backend import Framework, installed, load_halves, name_of
from vae_common.cli.command_line import called, given
from vae_common.cli.experiment import Experiment, Flat, load_dataset
from vae_common.config import Config, NetworkConfig
from vae_common.errors import InputError


@dataclass(frozen=True)
class Arguments:
    """Makes a run, before its first epoch, of a folder that diffusers' AutoencoderKL wrote."""

    folder: tyro.conf.Positional[Path | None] = None
    """With config.json and diffusion_pytorch_model.safetensors; they decide the network."""
    framework: Framework | None = None
    """The half that the run is begun in; either can go on with it."""
    seed: int = 0
    """Decides batch order and noise."""
    output: Path | None = None
    """The run's folder; by default a new one under runs/."""
    experiment: Annotated[Experiment, Flat] = field(default_factory=Experiment)


def main(arguments: Arguments) -> dict[str, Any]:
    from vae_common.runs import checkpoints, diffusers, trainer
    from vae_common.runs.folder import BEGUN, Run, new_folder

    if arguments.folder is None:
        raise InputError(
            "folder: received nothing, expected the one that save_pretrained wrote: twin-vae import FOLDER"
        )
    asked, experiment = given(sys.argv[1:]), arguments.experiment
    decided = [f"--{f.name.replace('_', '-')}" for f in fields(NetworkConfig) if f.name not in ("rematerialize",)]
    for flag in decided:
        if flag in asked:
            raise InputError(f"{flag[2:]}: received {asked[flag]}, expected none: the folder decides the network")
    dataset = load_dataset(experiment.data)
    found = diffusers.read(arguments.folder, dataset.image_shape)
    loss = experiment.loss
    if "--reconstruction" not in asked:
        loss = replace(loss, reconstruction=found.config.loss.reconstruction)
    again: dict[str, Any] = {"rematerialize": experiment.network.rematerialize}
    config = replace(
        found.config,
        seed=arguments.seed,
        network=replace(found.config.network, **again),
        loss=loss,
        data=experiment.data,
        training=experiment.training,
        optimizer=experiment.optimizer,
        train_images=len(dataset.train),
    )
    framework = arguments.framework or installed()[0]
    half = load_halves(framework, program_cache=experiment.program_cache, threads=experiment.threads)[framework]
    trainer.require_trainable(half, config, dataset)
    weights = half.to_arrays(_loaded(half, config, found.weights))
    state = half.state_to_arrays(half.create_state(config, dataset.train.some))
    average = {name: weights[name.removeprefix(checkpoints.AVERAGE)] for name in state if name.startswith("average.")}
    run = Run(new_folder(arguments.output, f"{framework}-{config.model}-{dataset.name.replace('/', '-')}-imported"))
    with files.alone_in(run.folder, "is being written by another process"):
        made = {"framework": name_of(half), "config": config.to_json(), "data": dataset.fingerprint}
        command = [*called("import"), *sys.argv[1:]]
        run.write_json(diffusers.CARRIED_FILE, found.carried)
        run.write_json(BEGUN, made | {"environment": half.environment(config.training.device), "command": command})
        arrays = state | weights | average
        point = checkpoints.Checkpoint(arrays, config, name_of(half), 0, [], dataset.fingerprint)
        checkpoints.write(run.checkpoint_path, point)
    count = sum(array.size for array in weights.values())
    return {"run": str(run.folder), "framework": framework, "parameters": count}


def _loaded(half: Any, config: Config, weights: Any) -> Any:
    return half.load_arrays(half.create_model(config), weights, config.training.dtype, half.device_for(config))
