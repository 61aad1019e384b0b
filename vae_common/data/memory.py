"""What a training takes of memory at least, held against what there is: refused before, not killed after."""

from __future__ import annotations

import contextlib
import math
import os
import resource
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vae_common.config import Config
from vae_common.errors import InputError

GROUP = Path("/sys/fs/cgroup")
GROUPS = (
    (GROUP / "memory.max", GROUP / "memory.current", GROUP / "memory.stat"),
    *[tuple(GROUP / "memory" / f"memory.{name}" for name in ("limit_in_bytes", "usage_in_bytes", "stat"))],
)
"""Of a container, versions 2 and 1: its limit, what it uses, and how much of that are files that were read."""
CACHED = ("inactive_file", "total_inactive_file")
EVALUATED = 1000
"""Images that an evaluation passes through a model at a time."""


def available() -> int:
    """Bytes of the host's memory that this process may still take: of the machine, its container and its limits."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")))
    for most, used, cache in GROUPS:
        with contextlib.suppress(OSError, ValueError, StopIteration):
            limit = int(most.read_text())
            held = next(line.split()[1] for line in cache.read_text().splitlines() if line.split()[0] in CACHED)
            found.append(limit - int(used.read_text()) + int(held))  # files that were read are let go for it
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        with contextlib.suppress(OSError, ValueError, IndexError):
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit -= pages * os.sysconf("SC_PAGE_SIZE")
        found.append(limit)
    return max(0, min(found))


@dataclass(frozen=True)
class Needs:
    """Bytes that a training keeps at the same time, by part."""

    weights: int
    """With moments and gradients."""
    draws: int
    """An epoch's random numbers."""
    activations: int
    """Of a step, or of an evaluation."""
    images: int

    @property
    def total(self) -> int:
        """All parts together."""
        return self.weights + self.draws + self.activations + self.images


WORDS = {
    "weights": ("weights, moments and gradients", "a smaller network"),
    "draws": ("an epoch's random numbers", "fewer samples or latents"),
    "activations": ("a step's activations", "a smaller batch_size, fewer samples, or a smaller network"),
    "images": ("images", "fewer or smaller images"),
}
"""Of each part of `Needs`, what a message calls it, and what takes less of it."""


def required(config: Config, shapes: Mapping[str, tuple[int, ...]], images: int, seeds: int = 1) -> Needs:
    """What a training takes; the least, so that nothing is refused that would fit.

    Args:
        config: the experiment.
        shapes: of the model's parameters, by name.
        images: in the training split.
        seeds: trained in one program.
    """
    size = 8 if config.training.dtype == "float64" else 4
    batch, samples = config.training.batch_size, config.loss.samples
    weights = sum(math.prod(shape) for shape in shapes.values()) * size * seeds
    kept = 3 + bool(config.optimizer.average)  # weights, two moments, their average: also as before the epoch
    drawn = images // batch * batch * seeds
    # Shared random numbers are drawn in float64 and go to the device in the run's own dtype.
    drawn_size = size + (8 if config.training.randomness == "shared" else 0)
    noise = drawn * math.prod(config.noise_shape) * drawn_size
    thresholds = drawn * config.pixels if config.data.binarization == "dynamic" else 0
    widths = {name: shape[0] for name, shape in shapes.items() if name.endswith(".bias")}
    decoder = sum(width for name, width in widths.items() if name.startswith("decoder."))
    encoder = sum(widths.values()) - decoder
    # What a layer computed is kept for the backward pass: the encoder's for each image, the decoder's for each draw.
    step = batch * seeds * (encoder + samples * decoder)
    evaluation = min(EVALUATED, images) * max(encoder, decoder)
    return Needs(
        weights=weights * (2 * kept + 1),
        draws=noise + thresholds,
        activations=max(step, evaluation) * size,
        images=images * config.pixels,
    )


def require(
    config: Config, shapes: Mapping[str, tuple[int, ...]], images: int, there: int | None, seeds: int = 1
) -> None:
    """Raises InputError where a training takes more memory than there is.

    Args:
        there: bytes that are free on the accelerator; None stands for a CPU, which has the host's memory.
    """
    needs = required(config, shapes, images, seeds)
    free = available() if there is None else there
    if there is not None:  # what the host draws is drawn in the host's memory
        size = 8 if config.training.dtype == "float64" else 4
        needs = replace(needs, draws=needs.draws * size // (8 + size))
    if needs.total > free:
        largest = max(WORDS, key=lambda part: getattr(needs, part))
        said, mend = WORDS[largest]
        raise InputError(
            f"memory: this training takes at least {_said(needs.total)}, {_said(getattr(needs, largest))} of it for "
            f"{said}, and {_said(free)} are free; expected {mend}"
        )


def _said(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")
