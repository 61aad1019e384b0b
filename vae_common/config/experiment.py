"""The experiment's configuration, declared once and read by both halves.

Every config is a frozen, hashable dataclass that checks itself when it is built, so an invalid one
never exists. `Config.from_json(config.to_json()) == config`, and unknown keys are errors.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from vae_common.config.checks import Checked, is_count, require_seed
from vae_common.config.parts import DataConfig, LossConfig, NetworkConfig, OptimizerConfig, TrainingConfig
from vae_common.config.registry import MODELS
from vae_common.errors import InputError, one_line, require, shown


@dataclass(frozen=True)
class Config(Checked):
    """One experiment: a model, a seed, and everything that decides the numbers."""

    model: str = "vae"
    seed: int = 0
    image_shape: tuple[int, int, int] = (28, 28, 1)
    """Height, width, channels; set from the data."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def _check(self) -> None:
        known = isinstance(self.model, str) and self.model in MODELS
        require(known, "model", self.model, f"one of {', '.join(MODELS)}")
        require_seed(self.seed)
        shape = self.image_shape
        valid = isinstance(shape, tuple) and len(shape) == 3 and all(is_count(n) for n in shape)
        require(valid, "image_shape", shape, "(height, width, channels), each >= 1")
        for refused, received, expected in self._refusals():
            require(not refused, f"model {self.model}", received, expected)

    def _refusals(self) -> list[tuple[bool, str, str]]:
        """What does not go together: whether it is asked for, how, and what to ask for instead."""
        latents, loss, network = MODELS[self.model].latents, self.loss, self.network
        stride = 2 ** len(network.channels)
        height, width, _ = self.image_shape
        single = latents == "gaussian"
        sampled = latents in ("gaussian", "hierarchical")
        return [
            (
                bool(height % stride or width % stride),
                f"channels {network.channels} on images of {height}x{width}",
                f"a height and width that {len(network.channels)} halvings leave whole: fewer channels, or images "
                f"padded to {-(-height // stride) * stride}x{-(-width // stride) * stride} (np.pad)",
            ),
            (loss.objective != "elbo" and not sampled, f"objective {loss.objective}", "elbo: nothing is drawn in it"),
            (
                loss.objective == "dreg" and not single,
                "objective dreg",
                "iwae or elbo: the doubly reparameterised gradient is made for one stochastic layer",
            ),
            (loss.samples > 1 and not sampled, f"samples {loss.samples}", "1: nothing is drawn in it"),
            (loss.free_bits > 0 and not single, f"free_bits {loss.free_bits}", "0: it has no KL per latent dimension"),
            (
                loss.kl == "tutorial" and latents in ("hierarchical", "quantized"),
                "kl tutorial",
                "gaussian: the tutorial's formula is for one Gaussian layer",
            ),
            (
                latents == "quantized" and network.latent_dim % network.code_dim > 0,
                f"code_dim {network.code_dim} with latent_dim {network.latent_dim}",
                "a divisor of latent_dim",
            ),
        ]

    @property
    def pixels(self) -> int:
        """Values per image: height * width * channels."""
        height, width, channels = self.image_shape
        return height * width * channels

    @property
    def grid_shape(self) -> tuple[int, int, int]:
        """Height, width and channels behind the encoder's convolutions: the image's own where there are none."""
        height, width, channels = self.image_shape
        stride = 2 ** len(self.network.channels)
        return height // stride, width // stride, (channels, *self.network.channels)[-1]

    @property
    def noise_dim(self) -> int:
        """Standard-normal numbers that one posterior draw takes: 0 for an AE."""
        if MODELS[self.model].latents == "hierarchical":
            return self.network.latent_dim + self.network.top_dim
        return self.network.latent_dim if MODELS[self.model].posterior else 0

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Of one image's noise in a training step: (noise_dim,), or (samples, noise_dim) where there are several."""
        return (self.noise_dim,) if self.loss.samples == 1 else (self.loss.samples, self.noise_dim)

    @property
    def prior_dim(self) -> int:
        """Standard-normal numbers that one draw from the prior takes."""
        if MODELS[self.model].latents == "quantized":
            return self.network.latent_dim // self.network.code_dim
        return self.noise_dim or self.network.latent_dim

    @property
    def comparable(self) -> Config:
        """This config with seed, device, execution and the data's place set aside: equal for runs that differ by draws
        only. (Whether they saw the same data is for their fingerprints to say.)"""
        training = dataclasses.replace(self.training, device="auto", execution="auto")
        data = dataclasses.replace(self.data, dataset="elsewhere", data_dir="", manual_dir=None)
        return dataclasses.replace(self, seed=0, training=training, data=data)

    @property
    def is_likelihood(self) -> bool:
        """Whether the reconstruction is the negative logarithm of a normalised probability or density of the data."""
        likelihood, binarized = self.loss.likelihood, self.data.binarization != "none"
        return likelihood.normalised or (binarized and likelihood.binarized_unit is not None)

    def require_marginal(self) -> None:
        """Raises InputError where there is no marginal likelihood to estimate."""
        drawn, unit = MODELS[self.model].posterior, self.reconstruction_unit
        require(drawn, f"model {self.model}", "no posterior", "one that draws its latents, such as vae")
        require(self.is_likelihood, "reconstruction", unit, "a likelihood: another reconstruction, or binarized images")

    @property
    def reconstruction_unit(self) -> str:
        """What one unit of the reconstruction term is, for records and axis labels."""
        likelihood, binarization = self.loss.likelihood, self.data.binarization
        if binarization == "none":
            return likelihood.unit
        return f"{likelihood.binarized_unit or likelihood.unit}, {binarization} binarization"

    @property
    def kl_unit(self) -> str:
        """What the KL term is, for records and axis labels."""
        if MODELS[self.model].latents == "quantized":
            return "nats to a uniform prior over the codes (constant)"
        return "the tutorial's penalty (not a KL)" if self.loss.kl == "tutorial" else "nats"

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Config:
        """The inverse of `to_json`; raises InputError on an unknown key or a bad value."""
        training = values.get("training") if isinstance(values, dict) else None
        if isinstance(training, dict) and "dtype" in training:  # what earlier records call precision
            training = {{"dtype": "precision"}.get(name, name): value for name, value in training.items()}
            values = values | {"training": training}
        return _from_json(cls, values, "config")


_T = TypeVar("_T")


def _from_json(cls: type[_T], values: object, where: str) -> _T:
    if not isinstance(values, dict):
        raise InputError(f"{where}: received {shown(values)}, expected an object with named fields")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        said = one_line(", ".join(unknown), 120)
        raise InputError(f"{where}: unknown keys {said}; known: {', '.join(hints)}")
    fields: dict[str, Any] = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            value = _from_json(typing.cast(type, hints[name]), value, name)
        fields[name] = tuple(value) if isinstance(value, list) else value
    return cls(**fields)


def require_stackable(configs: Sequence[Config], steps: Sequence[int]) -> None:
    """Raises InputError unless these are experiments that differ in their seed only, as many steps in."""
    if not configs or len({config.seed for config in configs}) < len(configs):
        raise InputError(f"states: received seeds {[c.seed for c in configs]}, expected at least one, each once")
    if len({dataclasses.replace(config, seed=0) for config in configs}) > 1:
        raise InputError("states: received configs that differ in more than their seed, expected equal ones")
    if len(set(steps)) > 1:
        raise InputError(f"states: received states after {list(steps)} steps, expected the same number")
