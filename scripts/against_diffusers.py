"""Holds `kl_autoencoder` of both halves against diffusers' own `AutoencoderKL`, with random and perturbed weights.

python -m scripts.against_diffusers --output results/diffusers.json

Moments, decoded images, the loss and every gradient of random configs and of Stable Diffusion's, in float64 and in
float32, each relative to the tensor's largest value. Weights go to the halves by the folder that diffusers saves, and
back by the one that they save.

In float32 the original is itself off its float64 self, by more than 2e-5 where a gradient of few numbers is a sum that
cancels. That is in the record, and a half may be four times as far off. ReLU is tried in float64 alone: in
float32 a unit at its kink is on for one and off for another.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import tyro

from vae_common import files
from vae_common.backend import Half, load_halves
from vae_common.conformance.engine.checks import difference

STABLE_DIFFUSION = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 64,
}
"""The autoencoder of Stable Diffusion 1 and 2: 83,653,863 parameters."""
LIMITS = {"float64": 1e-12, "float32": 2e-5}


@dataclass(frozen=True)
class Compared:
    """One half against diffusers: the largest difference of each kind, relative to the tensor's largest value."""

    half: str
    precision: str
    parameters: int
    moments: float
    decoded: float
    loss: float
    gradient: float
    worst_gradient: str
    """Whose."""
    rounding: float
    """In float32, how far the original's own gradients are from those of the same weights in float64, at most."""
    returned: bool
    """Whether the weights come back bit for bit, by export and by import into diffusers."""
    settings: dict[str, Any]

    @property
    def worst(self) -> float:
        """The largest of all."""
        return max(self.moments, self.decoded, self.loss, self.gradient)

    @property
    def passed(self) -> bool:
        """Whether everything is within its limit, and the weights came back."""
        return self.returned and self.worst <= max(LIMITS[self.precision], 4 * self.rounding)


def random_settings(count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Small configs that differ in everything that kl_autoencoder has."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        groups, blocks = int(rng.integers(1, 5)), int(rng.integers(1, 4))
        halvings = 2 ** (blocks - 1)
        yield {
            "in_channels": (channels := int(rng.choice([1, 3]))),
            "out_channels": channels,
            # Several channels a group: of one a norm takes the bias before it away, whose gradient is rounding alone.
            "block_out_channels": tuple(int(groups * n) for n in rng.integers(4, 9, blocks)),
            "layers_per_block": int(rng.integers(1, 4)),
            "act_fn": str(rng.choice(["silu", "swish", "gelu", "relu"])),
            "latent_channels": int(rng.integers(1, 6)),
            "norm_num_groups": groups,
            "sample_size": tuple(int(halvings * n) for n in rng.integers(2, 6, 2)),
            "use_quant_conv": bool(rng.integers(2)),
            "use_post_quant_conv": bool(rng.integers(2)),
            "mid_block_add_attention": bool(rng.integers(3)),
        }


def smooth(settings: dict[str, Any], precision: str) -> dict[str, Any]:
    """The settings as they are tried in this precision."""
    kinked = precision == "float32" and settings.get("act_fn") == "relu"
    return settings | {"act_fn": "silu"} if kinked else settings


def original(settings: Mapping[str, Any], precision: str, seed: int = 0) -> Any:
    """diffusers' model, every parameter moved away from where it starts."""
    torch.manual_seed(seed)
    blocks = len(settings["block_out_channels"])
    down, up = ("DownEncoderBlock2D",) * blocks, ("UpDecoderBlock2D",) * blocks
    model: Any = diffusers.AutoencoderKL(down_block_types=down, up_block_types=up, **settings)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            moved = 0.1 * torch.randn_like(parameter)
            parameter.add_(moved if "norm" in name or name.endswith("bias") else 0.1 * moved)
    return model.to(getattr(torch, precision))


def by_diffusers(model: Any, images: np.ndarray, noise: np.ndarray) -> dict[str, Any]:
    """Moments, decoded images, the loss and its gradients, by diffusers and PyTorch; arrays with channels last."""
    first = next(model.parameters())
    pixels = torch.from_numpy(images).to(first.dtype).permute(0, 3, 1, 2)
    posterior = model.encode(2 * pixels - 1).latent_dist
    own = torch.from_numpy(noise).to(first.dtype)
    by_place = own.reshape(len(images), *posterior.mean.permute(0, 2, 3, 1).shape[1:]).permute(0, 3, 1, 2)
    decoded = model.decode(posterior.mean + posterior.std * by_place).sample
    errors = pixels - (decoded + 1) / 2
    nats = (errors**2 / 2 + math.log(2 * math.pi) / 2).sum((1, 2, 3))
    loss = (nats + posterior.kl()).mean()
    names, parameters = zip(*model.named_parameters())
    gradients = torch.autograd.grad(loss, parameters)
    log_std = posterior.logvar / 2
    return {
        "moments": {"mean": _array(posterior.mean), "log_std": _array(log_std)},
        "decoded": {"decoded": _array(decoded)},
        "loss": {"loss": loss.detach().numpy()},
        "gradient": {name: gradient.numpy() for name, gradient in zip(names, gradients)},
    }


def by_half(half: Half, loaded: Any, images: np.ndarray, noise: np.ndarray) -> dict[str, Any]:
    """The same by a half."""
    model, config = loaded
    outputs = half.forward(model, images, noise)
    (layer,) = outputs.layers
    shape = (len(images), *config.latent_shape)
    state = half.create_state(config)
    arrays = half.state_to_arrays(state) | half.to_arrays(model)
    dtype = config.training.dtype
    state = half.state_from_arrays(config, arrays)
    gradients, terms = half.gradients(state, images.astype(dtype), noise.astype(dtype))
    return {
        "moments": {name: array.reshape(shape) for name, array in layer.posterior._asdict().items()},
        "decoded": {"decoded": outputs.logits},
        "loss": {"loss": half.to_numpy(terms.objective)},
        "gradient": gradients,
    }


def compare(half: Half, settings: Mapping[str, Any], precision: str, count: int = 2) -> Compared:
    """One half against diffusers' model of these settings."""
    model = original(settings, precision)
    with tempfile.TemporaryDirectory() as there, tempfile.TemporaryDirectory() as back:
        model.save_pretrained(there)
        loaded = half.load_diffusers(there)
        half.save_diffusers(loaded.model, loaded.config, back)
        kind: Any = diffusers.AutoencoderKL
        again = kind.from_pretrained(back, torch_dtype=getattr(torch, precision), low_cpu_mem_usage=False).state_dict()
        returned = all(torch.equal(again[name], value) for name, value in model.state_dict().items())
    rng = np.random.default_rng(1)
    images = rng.random((count, *loaded.config.image_shape))
    noise = rng.standard_normal((count, loaded.config.noise_dim)).astype(precision).astype(np.float64)
    images = images.astype(np.float32)
    expected, found = by_diffusers(model, images, noise), by_half(half, loaded, images, noise)
    apart = {kind: {name: _apart(name, found[kind], arrays) for name in arrays} for kind, arrays in expected.items()}
    worst = {kind: max(of.values()) for kind, of in apart.items()}
    named = max(apart["gradient"], key=lambda name: apart["gradient"][name])
    rounding = 0.0
    if precision == "float32":
        exact = by_diffusers(model.double(), images, noise)["gradient"]
        rounding = max(_apart(name, expected["gradient"], exact) for name in exact)
    return Compared(
        half=half.__name__,
        precision=precision,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        worst_gradient=named,
        rounding=rounding,
        returned=returned,
        settings=dict(settings),
        **worst,
    )


def _apart(name: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """Relative to the tensor's maximum. The keys' bias has no gradient but rounding: to that of the values' bias."""
    if name.endswith(".to_k.bias"):
        scale = np.abs(expected[name.replace("to_k", "to_v")]).max()
        return float(np.abs(found[name] - expected[name]).max() / scale)
    return difference(found[name], expected[name])


def _array(tensor: torch.Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().permute(0, 2, 3, 1).numpy()
    return array


@dataclass(frozen=True)
class Arguments:
    """Holds both halves' kl_autoencoder against diffusers' own."""

    configs: int = 20
    """Random ones."""
    large: bool = True
    """Stable Diffusion's too."""
    output: Path | None = None
    """Where the table goes as JSON."""


def main(arguments: Arguments) -> int:
    """The exit status: whether everything is within its limit."""
    files.require_folder(arguments.output, "output")
    tried = [*random_settings(arguments.configs), *[STABLE_DIFFUSION] * arguments.large]
    diffusers.utils.logging.set_verbosity_error()
    found = []
    halves = load_halves("jax", "torch", program_cache=False)
    for name, half in halves.items():
        for precision, limit in LIMITS.items():
            rows = [compare(half, smooth(settings, precision), precision) for settings in tried]
            found += rows
            worst = max(rows, key=lambda row: row.worst)
            print(f"{name} {precision}: worst {worst.worst:.2g} of {limit:g} ({worst.worst_gradient})", flush=True)
    if arguments.output:
        frameworks = [half.environment()["framework"].partition(",")[0] for half in halves.values()]
        record = {
            "command": ["python", "-m", "scripts.against_diffusers", *sys.argv[1:]],
            "framework": "; ".join([f"diffusers {diffusers.__version__}", *frameworks]),
            "rows": [asdict(row) for row in found],
        }
        files.write_json(arguments.output, record)
    return 0 if all(row.passed for row in found) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
