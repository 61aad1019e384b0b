"""The experiment's configuration, declared once and read by both halves.

Every config is a frozen, hashable dataclass that checks itself when it is built, so an invalid one
never exists. `Config.from_json(config.to_json()) == config`, and unknown keys are errors.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

from vae_common.config.checks import Checked, counts, is_count, require_seed
from vae_common.config.likelihoods import LIKELIHOODS
from vae_common.config.objectives import OBJECTIVES, Objective, Refusal
from vae_common.config.parts import DataConfig, LossConfig, NetworkConfig, OptimizerConfig, TrainingConfig
from vae_common.config.registry import MODELS, ModelEntry, Shape, size
from vae_common.contracts import CODE_TERMS, layer_term
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

    train_images: int = 0
    """Training images; set from the data where the objective is given their number, else 0."""

    def _check(self) -> None:
        known = isinstance(self.model, str) and self.model in MODELS
        require(known, "model", self.model, f"one of {', '.join(MODELS)}")
        require_seed(self.seed)
        shape = self.image_shape
        valid = isinstance(shape, tuple) and len(shape) == 3 and all(is_count(n) for n in shape)
        require(valid, "image_shape", shape, "(height, width, channels), each >= 1")
        require(is_count(self.train_images, 0), "train_images", self.train_images, counts(0))
        if not self.objective.set_size:  # the same experiment, whoever says how many there are
            object.__setattr__(self, "train_images", 0)
        for foreign in _foreign_fields(self.model, self.network, self.loss):
            require(False, foreign.name, foreign.value, foreign.expected)
        for refused, received, expected in self._refusals():
            require(not refused, f"model {self.model}", received, expected)

    def _refusals(self) -> Iterator[Refusal]:
        """What does not go together: whether it is asked for, how, and what to ask for instead."""
        entry, objective, loss, network = self.entry, self.objective, self.loss, self.network
        of_draws = [name for name, other in OBJECTIVES.items() if not other.of_draws]
        yield Refusal(
            objective.of_draws and not entry.draws,
            f"objective {loss.objective}",
            f"{' or '.join(of_draws)}: nothing is drawn in it",
        )
        yield Refusal(
            loss.free_bits > 0 and not entry.exact_kl, f"free_bits {loss.free_bits}", "0: its KL is not known exactly"
        )
        yield Refusal(
            loss.kl == "tutorial" and not (entry.standard_prior and len(self.layer_shapes) == 1),
            "kl tutorial",
            "gaussian: the tutorial's formula is for one Gaussian layer with a standard-normal prior",
        )
        yield Refusal(bool(network.classes) and not entry.labels, f"classes {network.classes}", "0: it takes no labels")
        yield Refusal(
            objective.set_size and not self.train_images,
            f"objective {loss.objective} and train_images 0",
            "the number of training images, which it weighs by",
        )
        mixed = self.data.block > 1 and self.training.randomness != "counter"
        yield Refusal(mixed, f"block {self.data.block} and randomness {self.training.randomness}", "randomness counter")
        yield from objective.refuses(self)
        yield from entry.refuses(self)

    @property
    def entry(self) -> ModelEntry:
        """What is declared of the model."""
        return MODELS[self.model]

    @property
    def objective(self) -> Objective:
        """What is declared of the objective."""
        return OBJECTIVES[self.loss.objective]

    @property
    def pixels(self) -> int:
        """Values per image: height * width * channels."""
        height, width, channels = self.image_shape
        return height * width * channels

    @property
    def stride(self) -> int:
        """Pixels of the image, to a side, for each place behind the encoder's convolutions."""
        return 1 << len(self.network.channels)

    @property
    def grid_shape(self) -> tuple[int, int, int]:
        """Height, width and channels behind the encoder's convolutions: the image's own where there are none.

        Height and width are rounded up: images are enlarged to a multiple of the stride.
        """
        height, width, channels = self.image_shape
        return -(-height // self.stride), -(-width // self.stride), (channels, *self.network.channels)[-1]

    @property
    def layer_shapes(self) -> tuple[Shape, ...]:
        """Of each stochastic layer's latents, in the order of their noise."""
        return tuple(self.entry.layers(self))

    @property
    def latent_shape(self) -> Shape:
        """Of what is decoded."""
        return self.entry.latent_shape(self)

    @property
    def noise_dim(self) -> int:
        """Standard-normal numbers that one posterior draw takes: 0 for an AE."""
        return size(self.layer_shapes)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Of one image's noise in a training step: (noise_dim,), or (samples, noise_dim) where there are several."""
        return (self.noise_dim,) if self.loss.samples == 1 else (self.loss.samples, self.noise_dim)

    @property
    def prior_dim(self) -> int:
        """Standard-normal numbers that one draw from the prior takes."""
        if self.entry.prior_dim is not None:
            return self.entry.prior_dim(self)
        return self.noise_dim or size([self.latent_shape])

    @property
    def layer_terms(self) -> tuple[str, ...]:
        """The names of the KL of each stochastic layer, where there are several."""
        count = len(self.layer_shapes)
        return tuple(layer_term(place) for place in range(1, count + 1)) if count > 1 else ()

    @property
    def codes(self) -> int:
        """How many codes the model's quantizer has, 0 where it has none."""
        return self.entry.codes(self) if self.entry.codes is not None else 0

    @property
    def followers(self) -> tuple[str, ...]:
        """The names of the parameters that follow the batch and not a gradient."""
        return self.entry.followers(self)

    @property
    def term_names(self) -> tuple[str, ...]:
        """Of every term that a training step gives."""
        of_codes = CODE_TERMS if self.codes else ()
        return ("total", "reconstruction", "kl", "objective", *self.layer_terms, *self.objective.terms, *of_codes)

    def of_model(self, model: str) -> Config:
        """This experiment with another model; the fields that only others have are at their defaults."""
        parts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        ((_, own),) = parts_of_models(parts | {"model": model}, [model], refuse=False)
        return Config(**own)

    @property
    def comparable(self) -> Config:
        """This config with seed, device, execution, sharding and the data's place set aside: equal for runs that differ
        by draws only. (Whether they saw the same data is for their fingerprints to say.)"""
        training = dataclasses.replace(self.training, device="auto", execution="auto", sharding="data")
        data = dataclasses.replace(self.data, dataset="elsewhere", data_dir="", manual_dir=None)
        return dataclasses.replace(self, seed=0, training=training, data=data)

    @property
    def is_likelihood(self) -> bool:
        """Whether the reconstruction is the negative logarithm of a normalised probability or density of the data."""
        likelihood, binarized = self.loss.likelihood, self.data.binarization != "none"
        return likelihood.normalised or (binarized and likelihood.binarized_unit is not None)

    def require_marginal(self) -> None:
        """Raises InputError where there is no marginal likelihood to estimate."""
        unit = self.reconstruction_unit
        require(self.entry.draws, f"model {self.model}", "no posterior", "one that draws its latents, such as vae")
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
        if self.entry.quantizes:
            return "nats to a uniform prior over the codes (constant)"
        return "the tutorial's penalty (not a KL)" if self.loss.kl == "tutorial" else "nats"

    @property
    def objective_unit(self) -> str:
        """What the objective's value is, for records and axis labels."""
        bound = self.objective.bounds(self.loss) and self.is_likelihood and self.entry.draws
        return f"{self.objective.unit}{', a bound on the negative log-likelihood' if bound else ''}"

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers; without the fields of other models, objectives and likelihoods."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        for part, name in not_read(self.model, self.loss.objective, self.loss.reconstruction):
            del values[part][name]
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Config:
        """The inverse of `to_json`; raises InputError on an unknown key or a bad value."""
        training = values.get("training") if isinstance(values, dict) else None
        if isinstance(training, dict) and "dtype" in training:  # what earlier records call precision
            training = {{"dtype": "precision"}.get(name, name): value for name, value in training.items()}
            values = values | {"training": training}
        return _from_json(cls, values, "config")

    @classmethod
    def from_record(cls, values: dict[str, Any]) -> Config:
        """`from_json` of what an earlier version may have written: fields that the experiment does not read, which were
        once taken without a word, are left out."""
        try:
            loss = values.get("loss", {})
            chosen = values["model"], loss.get("objective", "elbo"), loss.get("reconstruction", "bernoulli")
            kept = {name: dict(part) if isinstance(part, dict) else part for name, part in values.items()}
            for part, name in not_read(*chosen):
                kept.get(part, {}).pop(name, None)
        except (KeyError, AttributeError, TypeError):
            kept = values
        return cls.from_json(kept)


@dataclass(frozen=True)
class Foreign:
    """A field that was given to an experiment that does not read it."""

    part: str
    name: str
    value: Any
    default: Any
    expected: str


def _foreign_fields(model: str, network: NetworkConfig, loss: LossConfig) -> Iterator[Foreign]:
    """The fields of other models, objectives and likelihoods that are not at their defaults."""
    chosen = dict(zip(_owners(), (model, loss.objective, loss.reconstruction)))
    for part, name in not_read(*chosen.values()):
        of_part: Any = {"network": network, "loss": loss}[part]
        value, default = getattr(of_part, name), type(of_part).__dataclass_fields__[name].default
        if value != default:
            owners = {kind: table[name] for kind, table in _owners().items() if name in table}
            kind = next(kind for kind, of_kind in owners.items() if chosen[kind] not in of_kind)
            expected = f"{default}: {kind} {chosen[kind]} does not have it ({', '.join(owners[kind])})"
            yield Foreign(part, name, value, default, expected)


def same_but_for_model(a: Config, b: Config) -> bool:
    """Whether two experiments differ in nothing but their model and what the other's does not read."""
    shared = []
    for own, other in ((a, b), (b, a)):
        parts = {f.name: getattr(own, f.name) for f in dataclasses.fields(own) if f.name != "model"}
        shared += parts_of_models(parts, [other.model], refuse=False)
    return a == b if a.model == b.model else shared[0][1] == shared[1][1]


def parts_of_models(
    parts: Mapping[str, Any], models: Sequence[str], refuse: bool = True
) -> list[tuple[str, dict[str, Any]]]:
    """For each model the parts of an experiment without the fields that only other models have.

    With `refuse` InputError is raised for a field that none of them has.
    """
    foreign = {
        model: {f.name: f for f in _foreign_fields(model, parts["network"], parts["loss"])}
        for model in models
        if model in MODELS
    }
    for name in set.intersection(*map(set, foreign.values())) if refuse and foreign else ():
        field_of = next(iter(foreign.values()))[name]
        require(False, name, field_of.value, field_of.expected)
    found = []
    for model in models:
        own = dict(parts)
        for of in foreign.get(model, {}).values():
            own[of.part] = dataclasses.replace(own[of.part], **{of.name: of.default})
        found.append((model, own))
    return found


@cache
def _owners() -> dict[str, dict[str, list[str]]]:
    """By kind and field, who has it, of those fields that not everybody has."""
    tables: dict[str, Mapping[str, Any]] = {
        "model": MODELS, "objective": OBJECTIVES, "reconstruction": LIKELIHOODS,
    }  # fmt: skip
    found: dict[str, dict[str, list[str]]] = {kind: {} for kind in tables}
    for kind, table in tables.items():
        for owner, entry in table.items():
            for name in entry.own_fields:
                found[kind].setdefault(name, []).append(owner)
    return found


@cache
def not_read(model: str, objective: str, reconstruction: str) -> list[tuple[str, str]]:
    """(part, field) of what an experiment of these does not read."""
    chosen = dict(zip(_owners(), (model, objective, reconstruction)))
    names = {name for kind, table in _owners().items() for name, owners in table.items() if chosen[kind] not in owners}
    parts = {"network": NetworkConfig, "loss": LossConfig}
    return [(part, f.name) for part, cls in parts.items() for f in dataclasses.fields(cls) if f.name in names]


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
