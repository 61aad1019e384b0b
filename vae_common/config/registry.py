"""The registry of models: what decides which files, tests, flags and figures there are."""

from __future__ import annotations

import importlib
import importlib.util
import typing
from typing import Any, Literal, NamedTuple

from vae_common.errors import InputError, require

Latents = Literal["none", "gaussian", "hierarchical", "quantized"]


class ModelEntry(NamedTuple):
    """What the registry holds of a model."""

    class_name: str
    latents: Latents

    @property
    def posterior(self) -> bool:
        """Whether the forward pass draws latents from a posterior."""
        return self.latents in ("gaussian", "hierarchical")


MODELS: dict[str, ModelEntry] = {}


def register(name: str, class_name: str, latents: Latents) -> None:
    """Adds a model: the class of that name in `jax_vae/models/<name>.py` and in `torch_vae/models/<name>.py`.

    Raises InputError where the name or the class name is taken, is none for a file, or where there is no such kind
    of latents.
    """
    taken = {entry.class_name for entry in MODELS.values()}
    require(name not in MODELS, "model name", name, f"a name that is not registered yet: {', '.join(MODELS)}")
    require(class_name not in taken, "class name", class_name, f"one that no registered model has: {', '.join(taken)}")
    require(name.isidentifier(), "model name", name, "a module's name, for example my_vae")
    require(latents in typing.get_args(Latents), "latents", latents, f"one of {', '.join(typing.get_args(Latents))}")
    MODELS[name] = ModelEntry(class_name, latents)


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


# One line per model; the name is also that of its file in `jax_vae/models` and `torch_vae/models`.
register("ae", "AE", latents="none")
register("vae", "VAE", latents="gaussian")
register("two_layer_vae", "TwoLayerVAE", latents="hierarchical")
register("vq_vae", "VQVAE", latents="quantized")
