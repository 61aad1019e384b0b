"""The registry of models: what decides which files, tests, flags, fields and figures there are.

What a model can do is declared here, and asked here by everybody else.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vae_common.config.checks import Count, Positive, Rate, Widths  # noqa: F401  # those that fields are made of
from vae_common.config.objectives import Refusal, Refusals, nothing_refused
from vae_common.errors import InputError, require

Shape = tuple[int, ...]
DRAWN_FIELDS = ("samples", "beta", "kl", "kl_warmup", "free_bits")
"""Fields of the loss that only models with latents that are drawn read."""
COMMON_FIELDS = ("hidden", "channels", "latent_dim", "output_bias")
"""Fields of the network that only models of the common encoder and decoder read."""


@dataclass(frozen=True)
class ModelEntry:
    """What the registry holds of a model. A function is of the experiment's `Config`."""

    class_name: str
    layers: Callable[[Any], Sequence[Shape]] = lambda config: ()
    """The shapes of its stochastic layers' latents, in the order of their noise."""
    latent_shape: Callable[[Any], Shape] = lambda config: (config.network.latent_dim,)
    """Of what is decoded: by default the first layer's latents."""
    from_the_top: bool = False
    """Whether its first layer is the one that no other stands above; else its last."""
    prior_dim: Callable[[Any], int] | None = None
    """Standard-normal numbers that one draw from the prior takes; by default those that a posterior draw takes."""
    exact_kl: bool = True
    """Whether the KL of each layer is known, given the layers above it; else it is estimated from the draws."""
    standard_prior: bool = True
    """Whether the first layer's latents are standard normal under the prior, and what is decoded is those."""
    codes: Callable[[Any], int] | None = None
    """How many codes its quantizer has, with a uniform prior; None where the forward pass has none."""
    followers: Callable[[Any], tuple[str, ...]] = lambda config: ()
    """The names of parameters that follow the batch and not a gradient."""
    labels: bool = True
    """Whether it may be given classes."""
    common: bool = True
    """Whether it is made of the common encoder and decoder: convolutions, if any, and dense layers."""
    without_gradient: tuple[str, ...] = ()
    """How the names of parameters end whose gradient is exactly zero."""
    refuses: Refusals = nothing_refused
    """What it does not go with."""
    fields: type | None = None
    """A frozen dataclass of fields that it adds to the network's config."""
    reads: tuple[str, ...] = ()
    """Fields of the loss that are its own."""

    @property
    def draws(self) -> bool:
        """Whether the forward pass draws latents from a posterior."""
        return self.layers is not ModelEntry.layers

    @property
    def quantizes(self) -> bool:
        """Whether the forward pass has `codes`."""
        return self.codes is not None

    @property
    def generates(self) -> bool:
        """Whether it has a prior to draw images from."""
        return self.draws or self.quantizes

    @property
    def own_fields(self) -> tuple[str, ...]:
        """The fields that it has and not every model."""
        brought = tuple(field.name for field in dataclasses.fields(self.fields)) if self.fields else ()
        common = (*COMMON_FIELDS, *["posterior_head"] * self.draws) if self.common else ()
        return (*brought, *self.reads, *common, *(DRAWN_FIELDS if self.draws else ()), *["classes"] * self.labels)


MODELS: dict[str, ModelEntry] = {}


def register(name: str, class_name: str, **declared: Any) -> None:
    """Adds a model: the class of that name in `jax_vae/models/<name>.py` and in `torch_vae/models/<name>.py`.

    Args:
        declared: what `ModelEntry` has besides.

    Raises InputError where the name or the class name is taken or is none for a file, and where something else is
    declared than there is.
    """
    taken = {entry.class_name for entry in MODELS.values()}
    require(name not in MODELS, "model name", name, f"a name that is not registered yet: {', '.join(MODELS)}")
    require(class_name not in taken, "class name", class_name, f"one that no registered model has: {', '.join(taken)}")
    require(name.isidentifier(), "model name", name, "a module's name, for example my_vae")
    known = [field.name for field in dataclasses.fields(ModelEntry)]
    for word in declared:
        require(word in known, f"model {name}: declares", word, f"one of {', '.join(known[1:])}")
    MODELS[name] = ModelEntry(class_name, **declared)


def find_class(package: str, name: str, base: type) -> Any:
    """A registered model's class in one half's `models` package; InputError says what of it is missing."""
    half, class_name = package.partition(".")[0], MODELS[name].class_name
    file = f"{half}/models/{name}.py"
    if importlib.util.find_spec(f"{package}.{name}") is None:
        raise InputError(f"model {name}: received no {file}, expected the twin of the other half's {name}.py")
    found = getattr(importlib.import_module(f"{package}.{name}"), class_name, None)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(f"model {name}: received {found!r} as {class_name} of {file}, expected an Autoencoder")
    return found


def size(shapes: Sequence[Shape]) -> int:
    """How many numbers arrays of these shapes have together."""
    return sum(math.prod(shape) for shape in shapes)


def one_layer(config: Any) -> Sequence[Shape]:
    """The layers of a model that draws its `latent_dim` latents at once."""
    return ((config.network.latent_dim,),)


@dataclass(frozen=True)
class TwoLayerFields:
    """The layer above."""

    top_hidden: Widths = (100, 100)
    """two_layer_vae: widths of the hidden layers between its two stochastic layers."""
    top_dim: Count = 50
    """two_layer_vae: dimensions of the upper stochastic layer."""


@dataclass(frozen=True)
class CodebookFields:
    """What an encoder's output is replaced by."""

    codes: Count = 64
    """vq_vae: vectors in the codebook."""
    code_dim: Count = 1
    """vq_vae: dimensions of each; of a dense layout latent_dim has to be a multiple."""
    code_layout: Literal["dense", "grid"] = "dense"
    """vq_vae: dense cuts codes from a dense layer's output; grid has one at each place of the convolutions' grid."""
    codebook_update: Literal["gradient", "moving_average"] = "gradient"
    """vq_vae: how the codebook is learned (moving_average: van den Oord et al. 2017, appendix A.1)."""
    codebook_decay: Rate = 0.99
    """vq_vae: of the moving average."""
    restart_below: Rate = 0.0
    """vq_vae: a vector that is used less than this share of an even use restarts at an encoder's output; 0: none."""
    levels: Widths = ()
    """vq_vae: in place of a codebook, how many values each number of a code is rounded to (FSQ): 8 5 5 5."""


def code_shape(config: Any) -> Shape:
    """A quantizer's places, the numbers of a code, and how many codes there are."""
    network = config.network
    width = len(network.levels) or network.code_dim
    height_and_width = config.grid_shape[:2]
    places = math.prod(height_and_width) if network.code_layout == "grid" else network.latent_dim // width
    return places, width, math.prod(network.levels) if network.levels else network.codes


def code_followers(config: Any) -> tuple[str, ...]:
    """The parameters of a codebook that is a moving average."""
    return ("codebook.weight", "codebook_use") if config.network.codebook_update == "moving_average" else ()


def _latents_of_codes(config: Any) -> Shape:
    grid = config.network.code_layout == "grid"
    return (*config.grid_shape[:2], code_shape(config)[1]) if grid else (config.network.latent_dim,)


def _unfit_codes(config: Any) -> Iterator[Refusal]:
    network = config.network
    grid, averaged = network.code_layout == "grid", network.codebook_update == "moving_average"
    width, word = (len(network.levels), "levels") if network.levels else (network.code_dim, "code_dim")
    yield Refusal(
        not grid and network.latent_dim % width > 0,
        f"{word} {getattr(network, word)} with latent_dim {network.latent_dim}",
        "a divisor of latent_dim" if word == "code_dim" else "as many as divide latent_dim",
    )
    yield Refusal(
        any(level < 2 for level in network.levels), f"levels {network.levels}", "at least 2 of each, for example 8 5 5"
    )
    yield Refusal(math.prod(network.levels) >= 2**31, f"levels {network.levels}", "a product below 2^31")
    yield Refusal(grid and not network.channels, "code_layout grid without channels", "convolutions: --channels 32 64")
    yield Refusal(grid and network.classes > 0, f"classes {network.classes} with code_layout grid", "0: no labels")
    yield Refusal(network.codebook_decay >= 1, f"codebook_decay {network.codebook_decay}", "a number below 1")
    yield Refusal(network.restart_below >= 1, f"restart_below {network.restart_below}", "a share below 1")
    unread = {
        "code_layout grid": ("hidden", "latent_dim") if grid else (),
        "levels": ("codes", "code_dim", "codebook_update", "codebook_decay", "restart_below") if network.levels else (),
        "codebook_update gradient": () if averaged else ("codebook_decay", "restart_below"),
    }
    for reason, names in unread.items():
        for name in names:
            value, default = getattr(network, name), type(network).__dataclass_fields__[name].default
            yield Refusal(value != default, f"{name} {value} with {reason}", f"{default}: it is not read there")


@dataclass(frozen=True)
class MixtureFields:
    """A learned prior."""

    components: Count = 10
    """mixture_vae: Gaussians that its prior is a mixture of."""


@dataclass(frozen=True)
class LadderFields:
    """Stochastic layers above each other."""

    ladder_layers: Count = 5
    """ladder_vae: stochastic layers, each of latent_dim latents."""
    ladder_width: Count = 256
    """ladder_vae: numbers that its layers hand on, up and down."""
    ladder_hidden: Count = 128
    """ladder_vae: width of the hidden layer inside each of its blocks."""


@dataclass(frozen=True)
class ResidualFields:
    """Residual blocks and a grid of latents, as in latent-diffusion models' autoencoders."""

    block_channels: Widths = (32, 64)
    """kl_autoencoder: channels of its blocks, the first at the image's size, each later one at half of it."""
    block_layers: Count = 1
    """kl_autoencoder: residual layers in each of the encoder's blocks; the decoder's have one more."""
    latent_channels: Count = 4
    """kl_autoencoder: channels of the grid of latents."""
    norm_groups: Count = 8
    """kl_autoencoder: groups of channels that are normalised together; they divide every block's channels."""
    attention: Literal["middle", "none"] = "middle"
    """kl_autoencoder: whether the places of the smallest grid attend to each other."""
    latent_convolutions: Literal["both", "encoder", "decoder", "none"] = "both"
    """kl_autoencoder: 1x1 convolutions after the encoder and before the decoder (diffusers: quant and post_quant)."""
    rematerialize: Literal["none", "blocks"] = "none"
    """kl_autoencoder: what is computed again in the backward pass in place of being kept; no number changes."""


def latent_grid(config: Any) -> Shape:
    """Height, width and channels of a kl_autoencoder's latents."""
    height, width, _ = config.image_shape
    halvings = len(config.network.block_channels) - 1
    return height >> halvings, width >> halvings, config.network.latent_channels


def _uneven(config: Any) -> Iterator[Refusal]:
    network, (height, width, _) = config.network, config.image_shape
    channels, groups = network.block_channels, network.norm_groups
    yield Refusal(not channels, "block_channels ()", "at least one width, for example 32 64")
    size = 2 ** max(len(channels) - 1, 0)
    yield Refusal(
        bool(height % size or width % size),
        f"block_channels {channels} on images of {height}x{width}",
        f"a height and width that {len(channels) - 1} halvings leave whole: fewer blocks, or images padded to "
        f"{-(-height // size) * size}x{-(-width // size) * size} (--image-size, np.pad)",
    )
    uneven = [count for count in channels if count % groups]
    yield Refusal(bool(uneven), f"norm_groups {groups} with block_channels {channels}", "a divisor of each")


# The name is also that of the model's file in `jax_vae/models` and `torch_vae/models`.
register("ae", "AE")
register("vae", "VAE", layers=one_layer)
register(
    "two_layer_vae",
    "TwoLayerVAE",
    layers=lambda config: ((config.network.latent_dim,), (config.network.top_dim,)),
    exact_kl=False,  # the upper layer is drawn from what the lower one drew
    standard_prior=False,
    fields=TwoLayerFields,
)
register(
    "vq_vae",
    "VQVAE",
    latent_shape=_latents_of_codes,
    prior_dim=lambda config: code_shape(config)[0],
    codes=lambda config: code_shape(config)[2],
    followers=code_followers,
    refuses=_unfit_codes,
    fields=CodebookFields,
    reads=("commitment",),
)
register(
    "mixture_vae",
    "MixtureVAE",
    layers=one_layer,
    prior_dim=lambda config: config.network.latent_dim + 1,  # one more chooses the component
    exact_kl=False,
    standard_prior=False,
    fields=MixtureFields,
)
register(
    "kl_autoencoder",
    "KLAutoencoder",
    layers=lambda config: (latent_grid(config),),
    latent_shape=latent_grid,
    labels=False,
    common=False,
    without_gradient=(".to_k.bias",),
    refuses=_uneven,
    fields=ResidualFields,
)
register(
    "ladder_vae",
    "LadderVAE",
    layers=lambda config: ((config.network.latent_dim,),) * config.network.ladder_layers,
    latent_shape=lambda config: (config.network.latent_dim * config.network.ladder_layers,),
    from_the_top=True,
    standard_prior=False,
    fields=LadderFields,
    reads=("kl_stagger",),
)
