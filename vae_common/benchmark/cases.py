"""What a benchmark measures: one case, made of a network and how it is run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

from vae_common.config import Config, NetworkConfig, TrainingConfig
from vae_common.config.checks import require_count
from vae_common.errors import InputError


@dataclass(frozen=True)
class Case:
    """What is measured; `kind` says how."""

    kind: str = "step"
    """step: starts, steps, ceilings; network: starts, whole epochs and steps, of any network; epoch: whole epochs with
    their draws; warm: a start that finds its programs compiled; loss: test loss against seconds."""
    framework: str = "jax"
    """jax, torch, recipe (the loader, optimiser and loop of pytorch/examples' VAE), or a peer (see peers.py)."""
    execution: str = "auto"
    precision: str = "float32"
    model: str = "vae"
    hidden: tuple[int, ...] = (512,)
    latent_dim: int = 2
    batch_size: int = 128
    ensemble: int = 1
    images: int = 0
    """Of an epoch; 0 takes as many as a round of steps needs."""
    epochs: int = 1
    """Of kind `loss`."""
    dataset: str = "digits"
    """Of kind `loss`."""
    data_dir: str = "data"
    device: str = "auto"
    rounds: int = 15
    seed: int = 0
    experiment: str = ""
    """A whole config as JSON, for what the fields above do not say: they then repeat it, but for the execution."""

    def config(self) -> Config:
        """The experiment; raises InputError where it is none."""
        for name, value in (("rounds", self.rounds), ("ensemble", self.ensemble)):
            require_count(name, value, 1)
        if self.images and self.images < self.batch_size:
            raise InputError(f"images: received {self.images}, expected at least a batch of {self.batch_size}")
        training: dict[str, Any] = {
            name: getattr(self, name) for name in ("execution", "precision", "batch_size", "device", "epochs")
        }
        if self.experiment:
            whole = Config.from_record(json.loads(self.experiment))
            network = replace(whole.network, output_bias="initializer")  # what else it may be needs the training set
            return replace(whole, seed=self.seed, network=network, training=replace(whole.training, **training))
        return Config(
            self.model,
            seed=self.seed,
            network=NetworkConfig(self.hidden, latent_dim=self.latent_dim),
            training=TrainingConfig(**training),
        )

    @classmethod
    def of(cls, config: Config, **values: Any) -> Case:
        """The case of a whole experiment."""
        training = {name: getattr(config.training, name) for name in ("execution", "precision", "batch_size", "device")}
        network = {"hidden": config.network.hidden, "latent_dim": config.network.latent_dim}
        text = json.dumps(config.to_json(), sort_keys=True)
        return cls(**{"model": config.model, **network, **training, "experiment": text, **values})

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Case:
        """The case of a record, also of an earlier version's."""
        named: dict[str, Any] = {
            {"parallel_seeds": "ensemble"}.get(name, name): value for name, value in values.items()
        }
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in named.items()}
        return cls(**fields)

    def checked(self) -> Case:
        """Itself; raises InputError where it is none."""
        self.config()
        return self

    @property
    def key(self) -> str:
        """Names the case in records: equal keys are the same measurement."""
        values = dataclasses.asdict(self)
        values = {name: value for name, value in values.items() if name not in ("rounds", "data_dir", "device")}
        for name, plain in (("seed", 0), ("experiment", "")):  # earlier versions' keys are without them
            if values[name] == plain:
                del values[name]
        if self.experiment:
            values["experiment"] = hashlib.sha256(_essence(json.loads(self.experiment)).encode()).hexdigest()[:8]
        return " ".join(f"{name}={'x'.join(map(str, v)) if isinstance(v, tuple) else v}" for name, v in values.items())


def _essence(experiment: dict[str, Any]) -> str:
    """What of a config decides what a step costs: not where its data lie, nor how long it trains."""
    apart = {"data": ("data_dir", "manual_dir", "dataset"), "training": ("device", "epochs", "execution")}
    kept = {
        part: {name: value for name, value in values.items() if name not in apart.get(part, ())}
        for part, values in experiment.items()
        if isinstance(values, dict)
    }
    return json.dumps(kept | {"model": experiment["model"], "image_shape": experiment["image_shape"]}, sort_keys=True)
