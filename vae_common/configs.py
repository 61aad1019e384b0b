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
from typing import Any, Literal, NamedTuple, TypeVar


class InputError(ValueError):
    """What a user gave cannot be used. One line: what was received, what was expected, the mend."""


class ModelEntry(NamedTuple):
    """A model's class name and whether its forward pass draws latents from a posterior."""

    class_name: str
    posterior: bool


# One line per model; the key is also the name of its file in `jax_vae/models` and `torch_vae/models`.
MODELS: dict[str, ModelEntry] = {
    "ae": ModelEntry("AE", posterior=False),
    "vae": ModelEntry("VAE", posterior=True),
}

Activation = Literal["relu", "tanh", "softplus", "gelu", "silu"]
Reconstruction = Literal["bernoulli", "squared_error"]
KL = Literal["gaussian", "tutorial"]
Reduction = Literal["mean", "sum"]
Binarization = Literal["none", "threshold", "static", "dynamic"]
Precision = Literal["float64", "float32", "tf32", "bfloat16"]
Execution = Literal["auto", "eager", "compile", "graph"]
Randomness = Literal["shared", "native"]
Device = Literal["auto", "cpu", "cuda", "tpu", "mps"]


def _require(ok: bool, name: str, received: object, expected: str) -> None:
    if not ok:
        raise InputError(f"{name}: received {received!r}, expected {expected}")


def _is_count(value: object, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def require_count(name: str, value: object) -> None:
    """Raises InputError where an argument is not an integer of at least 0."""
    _require(_is_count(value, 0), name, value, "an integer >= 0")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class _Checked:
    """Checks every `Literal` field against its choices, then the class's own `_check`."""

    def __post_init__(self) -> None:
        for name, hint in typing.get_type_hints(type(self)).items():
            if typing.get_origin(hint) is Literal:
                choices, value = typing.get_args(hint), getattr(self, name)
                _require(value in choices, name, value, f"one of {', '.join(choices)}")
        self._check()

    def _check(self) -> None:
        pass


@dataclass(frozen=True)
class NetworkConfig(_Checked):
    """The encoder's and the decoder's shape."""

    hidden: tuple[int, ...] = (512,)
    """Widths of the encoder's hidden layers; the decoder has them in reverse."""
    latent_dim: int = 2
    """Number of latent dimensions."""
    activation: Activation = "relu"
    """Non-linearity after each hidden layer."""

    def _check(self) -> None:
        valid = isinstance(self.hidden, tuple) and all(_is_count(width) for width in self.hidden)
        _require(valid, "hidden", self.hidden, "widths of at least 1, for example 512 256")
        _require(_is_count(self.latent_dim), "latent_dim", self.latent_dim, "an integer >= 1")


@dataclass(frozen=True)
class LossConfig(_Checked):
    """The terms of the loss and how they add up: reconstruction + beta * KL."""

    reconstruction: Reconstruction = "bernoulli"
    """Bernoulli negative log-likelihood from logits, or the tutorial's squared error."""
    beta: float = 1.0
    """Weight of the KL term."""
    kl: KL = "gaussian"
    """The KL to the standard normal, or the tutorial's formula (which is not a KL)."""
    reduction: Reduction = "mean"
    """Over the batch, for the gradient only; reports are always per image."""

    def _check(self) -> None:
        valid = _is_number(self.beta) and 0 <= self.beta < float("inf")
        _require(valid, "beta", self.beta, "a finite number >= 0")


@dataclass(frozen=True)
class DataConfig(_Checked):
    """Which images, and as what the model sees them."""

    dataset: str = "digits"
    """`digits`, a TensorFlow Datasets name such as `mnist`, an .npz file or a folder of IDX files."""
    data_dir: str = "data"
    """Where prepared and decoded sets are kept."""
    manual_dir: str | None = None
    """Folder that already holds the set's original files (no download then)."""
    binarization: Binarization = "none"
    """none: grey in [0, 1]; threshold: at 1/2; static: one draw per image; dynamic: one per step."""
    validation_size: int = 0
    """Training images set aside; 0 reports the test split after every epoch."""

    def _check(self) -> None:
        _require(bool(self.dataset), "dataset", self.dataset, "a name or a path")
        valid = _is_count(self.validation_size, 0)
        _require(valid, "validation_size", self.validation_size, "an integer >= 0")


@dataclass(frozen=True)
class TrainingConfig(_Checked):
    """The optimisation: Adam on shuffled mini-batches."""

    epochs: int = 20
    """Passes over the training images."""
    batch_size: int = 128
    """Images per step; a partial last batch is dropped in training, never in evaluation."""
    learning_rate: float = 1e-3
    """Adam's step size."""
    precision: Precision = "float32"
    """Of all arithmetic; tf32 (CUDA) and bfloat16: of the matrix products, the rest and all parameters in float32."""
    execution: Execution = "auto"
    """How an epoch's steps run. PyTorch: eager, torch.compile, or a captured CUDA graph; auto is graph on CUDA, else
    eager. JAX: eager is one jitted call a step, all others one program an epoch."""
    randomness: Randomness = "shared"
    """shared: NumPy draws, equal in both halves; native: each framework's own generator."""
    device: Device = "auto"
    """auto: the accelerator that the framework finds, else the CPU."""

    def _check(self) -> None:
        _require(_is_count(self.epochs, 0), "epochs", self.epochs, "an integer >= 0")
        _require(_is_count(self.batch_size), "batch_size", self.batch_size, "an integer >= 1")
        rate = self.learning_rate
        valid = _is_number(rate) and 0 < rate < float("inf")
        _require(valid, "learning_rate", rate, "a finite number > 0")

    @property
    def dtype(self) -> str:
        """Of parameters and optimiser: `float64` or `float32`."""
        return "float64" if self.precision == "float64" else "float32"

    @property
    def product_dtype(self) -> str | None:
        """What the operands of matrix products are rounded to, where that is not their own dtype."""
        return "bfloat16" if self.precision == "bfloat16" else None


@dataclass(frozen=True)
class Config(_Checked):
    """One experiment: a model, a seed, and everything that decides the numbers."""

    model: str = "vae"
    seed: int = 0
    image_shape: tuple[int, int, int] = (28, 28, 1)
    """Height, width, channels; set from the data."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def _check(self) -> None:
        _require(self.model in MODELS, "model", self.model, f"one of {', '.join(MODELS)}")
        _require(_is_count(self.seed, 0) and self.seed < 2**63, "seed", self.seed, "an integer from 0 to 2^63 - 1")
        shape = self.image_shape
        valid = isinstance(shape, tuple) and len(shape) == 3 and all(_is_count(n) for n in shape)
        _require(valid, "image_shape", shape, "(height, width, channels), each >= 1")

    @property
    def pixels(self) -> int:
        """Values per image: height * width * channels."""
        height, width, channels = self.image_shape
        return height * width * channels

    @property
    def noise_dim(self) -> int:
        """Standard-normal numbers that one image's forward pass takes: 0 for an AE."""
        return self.network.latent_dim if MODELS[self.model].posterior else 0

    @property
    def comparable(self) -> Config:
        """This config with seed, device, execution and folders set aside: equal for runs that differ by draws only."""
        training = dataclasses.replace(self.training, device="auto", execution="auto")
        data = dataclasses.replace(self.data, data_dir="", manual_dir=None)
        return dataclasses.replace(self, seed=0, training=training, data=data)

    @property
    def reconstruction_unit(self) -> str:
        """What one unit of the reconstruction term is, for records and axis labels."""
        if self.loss.reconstruction == "squared_error":
            return "squared error (nats of a Gaussian with variance 1/2, less its constant)"
        if self.data.binarization == "none":
            return "cross-entropy on grey pixels (nats, not a likelihood)"
        return f"nats, {self.data.binarization} binarization"

    @property
    def kl_unit(self) -> str:
        """What the KL term is, for records and axis labels."""
        return "nats" if self.loss.kl == "gaussian" else "the tutorial's penalty (not a KL)"

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

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
        raise InputError(f"{where}: received {values!r}, expected an object with named fields")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise InputError(f"{where}: unknown keys {', '.join(unknown)}; known: {', '.join(hints)}")
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


PRESETS: dict[str, Config] = {
    "default": Config(),
    # The tutorial as its text describes it, its own KL formula included.
    "tutorial": Config(
        loss=LossConfig(reconstruction="squared_error", kl="tutorial", reduction="sum"),
        data=DataConfig(dataset="mnist"),
    ),
    # The MNIST experiment of d3p's paper logs: test negative ELBO 99.63, standard deviation 0.30.
    "bernoulli50": Config(
        network=NetworkConfig(hidden=(400,), latent_dim=50, activation="softplus"),
        data=DataConfig(dataset="mnist", binarization="dynamic"),
    ),
}
