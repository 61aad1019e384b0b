"""Folders that diffusers' `AutoencoderKL` writes and reads, as experiments of `kl_autoencoder` with their weights.

    config.json                              its settings
    diffusion_pytorch_model.safetensors      its weights, under the names that kl_autoencoder has too

Of the library itself nothing is needed. What a config says that would change a result, and that kl_autoencoder has
not, is refused by its name.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from vae_common import files
from vae_common.config import Config, LossConfig, NetworkConfig, TrainingConfig
from vae_common.errors import InputError, require, shown
from vae_common.runs.checkpoints import Arrays

SETTINGS, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
CARRIED_FILE = "diffusers.json"
"""In the folder of an imported run: what only pipelines read."""
MODEL = "kl_autoencoder"
DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D"],
    "block_out_channels": [64],
    "layers_per_block": 1,
    "act_fn": "silu",
    "latent_channels": 4,
    "norm_num_groups": 32,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}
"""What decides a result, with what diffusers takes where a config does not say it."""
CARRIED = ("sample_size", "scaling_factor", "shift_factor", "latents_mean", "latents_std", "force_upcast")
"""What pipelines read, which scale the latents, and the model itself does not: kept for the way back."""
UNREAD = ("_class_name", "_diffusers_version", "_name_or_path")
ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu": "gelu", "relu": "relu"}
CONVOLUTIONS = {(True, True): "both", (True, False): "encoder", (False, True): "decoder", (False, False): "none"}
OLDER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of an attention's layers, in files of before diffusers 0.15, which may hold them as 1x1 convolutions."""
LARGEST_SIDE = 512


@dataclass(frozen=True)
class Imported:
    """What such a folder holds."""

    config: Config
    weights: Arrays
    """Under canonical names, float32 or float64."""
    carried: dict[str, Any]
    """What only pipelines read, of its config."""


def read(folder: str | os.PathLike[str], image_shape: tuple[int, int, int] | None = None) -> Imported:
    """The experiment and the weights of a folder that diffusers wrote.

    Args:
        folder: with config.json and diffusion_pytorch_model.safetensors.
        image_shape: height, width and channels; by default the folder's `sample_size`. The weights fit any.

    Raises InputError where a file is missing, damaged, or says what kl_autoencoder has not.
    """
    place = Path(folder)
    settings = _settings(place)
    size = settings.get("sample_size") or 32
    side = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
    shape = image_shape or (*side, settings["in_channels"])
    weights = _weights(place)
    double = any(array.dtype == np.float64 for array in weights.values())
    network: dict[str, Any] = {
        "activation": _activation(settings["act_fn"]),
        "block_channels": tuple(settings["block_out_channels"]),
        "block_layers": settings["layers_per_block"],
        "latent_channels": settings["latent_channels"],
        "norm_groups": settings["norm_num_groups"],
        "attention": "middle" if settings["mid_block_add_attention"] else "none",
        "latent_convolutions": CONVOLUTIONS[settings["use_quant_conv"], settings["use_post_quant_conv"]],
    }
    config = Config(
        model=MODEL,
        image_shape=shape,
        network=NetworkConfig(**network),
        loss=LossConfig(reconstruction="linear_gaussian"),
        training=TrainingConfig(precision="float64" if double else "float32"),
    )
    return Imported(config, weights, {name: settings[name] for name in CARRIED if name in settings})


def write(
    folder: str | os.PathLike[str], config: Config, weights: Mapping[str, np.ndarray], carried: Mapping[str, Any]
) -> None:
    """Writes config.json and the weights, as diffusers' `from_pretrained` reads them; existing files are replaced.

    Raises InputError where diffusers has no such model.
    """
    settings = settings_of(config, carried)
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.ascontiguousarray(array) for name, array in weights.items()}
    files.write_atomically(place / WEIGHTS, safetensors.numpy.save(arrays, metadata={"format": "pt"}))
    files.write_atomically(place / SETTINGS, (json.dumps(settings, indent=2) + "\n").encode())


def settings_of(config: Config, carried: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json says of an experiment; InputError where diffusers has no such model."""
    require(config.model == MODEL, "model", config.model, f"{MODEL}: diffusers has none of the others")
    network, (height, width, channels) = config.network, config.image_shape
    require(
        config.loss.likelihood.linear,
        "reconstruction",
        config.loss.reconstruction,
        "linear_gaussian: diffusers' decoder gives pixels in [-1, 1], and not logits",
    )
    known = ("silu", "gelu", "relu")
    require(network.activation in known, "activation", network.activation, f"one of {', '.join(known)}, as diffusers")
    blocks = len(network.block_channels)
    (quant, post_quant) = next(both for both, name in CONVOLUTIONS.items() if name == network.latent_convolutions)
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": network.activation,
        "block_out_channels": list(network.block_channels),
        "down_block_types": ["DownEncoderBlock2D"] * blocks,
        "in_channels": channels,
        "latent_channels": network.latent_channels,
        "layers_per_block": network.block_layers,
        "mid_block_add_attention": network.attention == "middle",
        "norm_num_groups": network.norm_groups,
        "out_channels": channels,
        "sample_size": height if height == width else [height, width],
        "up_block_types": ["UpDecoderBlock2D"] * blocks,
        "use_post_quant_conv": post_quant,
        "use_quant_conv": quant,
        **carried,
    }


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / SETTINGS
    found = files.read_json(path, "config of an AutoencoderKL")
    where = str(path)
    require(isinstance(found, dict), where, found, "an object with named fields")
    named = found.get("_class_name", "AutoencoderKL")
    require(named == "AutoencoderKL", f"{where}: _class_name", named, "AutoencoderKL")
    for name, value in found.items():
        known = name in DEFAULTS or name in CARRIED or name in UNREAD
        require(
            known or value is None, f"{where}: {name}", value, f"none: kl_autoencoder has only {', '.join(DEFAULTS)}"
        )
    settings: dict[str, Any] = DEFAULTS | found
    for name, default in DEFAULTS.items():
        value, kind = settings[name], type(default)
        fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        require(fits, f"{where}: {name}", value, f"one such as {json.dumps(default)}")
    for name in ("down_block_types", "up_block_types"):
        (only,) = DEFAULTS[name]
        same = settings[name] == [only] * len(settings["block_out_channels"])
        require(
            same, f"{where}: {name}", settings[name], f"{only} for each of block_out_channels: it has no other block"
        )
    ends = settings["in_channels"] == settings["out_channels"]
    require(ends, f"{where}: out_channels", settings["out_channels"], f"in_channels, {settings['in_channels']}")
    return settings


def _activation(name: str) -> Any:
    require(name in ACTIVATIONS, "act_fn", name, f"one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _weights(folder: Path) -> Arrays:
    path = folder / WEIGHTS
    if not path.exists() and path.with_suffix(".bin").exists():
        raise InputError(
            f"{path.with_suffix('.bin')}: received a pickle, which could run anything when it is read; expected "
            f"{WEIGHTS}: save it anew with save_pretrained(folder, safe_serialization=True)"
        )
    try:
        files.require_regular(path, "weights")
        found = safetensors.numpy.load_file(path)
    except FileNotFoundError as error:
        raise InputError(f"weights: {path} is not there; expected what save_pretrained writes") from error
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        said = f"weights: {path} cannot be read ({files.reason(error)})"
        raise InputError(f"{said}; expected float32, float64 or float16 in a whole safetensors file") from error
    return dict(_canonical(name, array) for name, array in found.items())


def _canonical(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """An entry under today's name, as dense as today's."""
    layer, _, kind = name.rpartition(".")
    parent, _, last = layer.rpartition(".")
    if ".attentions." in name and last in OLDER:
        name = f"{parent}.{OLDER[last]}.{kind}"
    if ".attentions." in name and array.ndim == 4 and array.shape[2:] == (1, 1):
        array = array[:, :, 0, 0]
    if array.dtype not in (np.float32, np.float64, np.float16):
        raise InputError(f"weights: received {name} as {shown(str(array.dtype))}, expected float32, float64 or float16")
    return name, array.astype(np.float32) if array.dtype == np.float16 else array


def with_precision(imported: Imported, precision: Any) -> Config:
    """The experiment in another precision than its file's."""
    training = dataclasses.replace(imported.config.training, precision=precision)
    return dataclasses.replace(imported.config, training=training)
