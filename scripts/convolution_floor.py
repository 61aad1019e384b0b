"""Holds the training step of convolutional and residual models over the time of its convolutions and products alone.

python -m scripts.convolution_floor --output results/convolution-floor.json

The floor is the sum, over a step, of every convolution's and every matrix product's forward pass and both gradients,
each by the faster of PyTorch's and XLA's kernels, alone in a hot loop. What each library's own kernels take is in the
record, too: it says whether a step waits for them or for something else. Steps and floors are measured in turn, round
by round, in one process; medians over the rounds.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import jax_vae
import torch_vae
from vae_common import files
from vae_common.backend import Half
from vae_common.benchmark.running import machine
from vae_common.cli.command_line import run_command
from vae_common.config import Config, LossConfig, NetworkConfig, TrainingConfig
from vae_common.machine import keep_memory

CALLS = 5
"""Of an operation, in each round."""
STEPS = 16
"""Of an epoch: a whole program's memory comes from the system at its start, which is no step's cost."""


class Operation(NamedTuple):
    """One convolution or product of a step, as PyTorch carries it out."""

    kind: str
    shapes: tuple[tuple[int, ...], ...]
    """Of its two operands; of a convolution input and kernel, PyTorch's layouts."""
    settings: tuple[Any, ...] = ()
    """Of a convolution stride, padding, and whether it is transposed."""
    needed: bool = True
    """Whether the first operand's gradient is computed."""


@dataclass(frozen=True)
class Arguments:
    """Measures steps over their convolutions and products."""

    rounds: int = 7
    output: Path | None = None
    """Where the record goes as JSON."""


def cases() -> dict[str, Config]:
    """The models that are measured."""
    two = NetworkConfig(channels=(32, 64), hidden=(), latent_dim=16)
    residual: dict[str, Any] = {"block_channels": (40, 80), "norm_groups": 8, "activation": "silu"}
    training = TrainingConfig(batch_size=128)
    return {
        "two convolutions, 28x28x1, batch 128": Config(network=two, training=training),
        "residual, 32x32x3, batch 32": Config(
            "kl_autoencoder",
            image_shape=(32, 32, 3),
            network=NetworkConfig(**residual),
            loss=LossConfig(reconstruction="linear_gaussian"),
            training=replace(training, batch_size=32),
        ),
    }


class _Recorder(TorchDispatchMode):
    """Notes every convolution and product between two features or weights."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: Counter[Operation] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name == "convolution":
            image, kernel, _, stride, padding, _, transposed, *_ = args
            shapes = tuple(image.shape), tuple(kernel.shape)
            self.found[Operation("convolution", shapes, (tuple(stride), tuple(padding), transposed))] += 1
        elif name in ("mm", "bmm"):
            self.found[Operation(name, tuple(tuple(array.shape) for array in args[:2]))] += 1
        return function(*args, **(kwargs or {}))


def operations(config: Config) -> Counter[Operation]:
    """Those of one step's forward pass, how often each; the images themselves need no gradient."""
    state = torch_vae.create_state(config)
    images, noise = torch.zeros(config.training.batch_size, *config.image_shape), _noise(config)
    with _Recorder() as recorder, torch.no_grad():
        state.model(images, torch.from_numpy(noise))
    channels = config.image_shape[2]
    return Counter(
        {
            operation._replace(needed=not (operation.kind == "convolution" and operation.shapes[0][1] == channels)): n
            for operation, n in recorder.found.items()
        }
    )


def by_torch(operation: Operation) -> Callable[[], Any]:
    """An operation's forward pass and gradients, by PyTorch."""
    rng = np.random.default_rng(0)
    a, b = (torch.from_numpy(rng.normal(size=shape).astype(np.float32)) for shape in operation.shapes)
    if operation.kind == "convolution":
        a = a.contiguous(memory_format=torch.channels_last)
        stride, padding, transposed = operation.settings

        def forward(a: Any, b: Any) -> Any:
            function = torch.conv_transpose2d if transposed else torch.conv2d
            return function(a, b, None, stride, padding)
    else:

        def forward(a: Any, b: Any) -> Any:
            return a @ b

    a.requires_grad_(operation.needed)
    b.requires_grad_()
    gradient = torch.ones_like(forward(a, b))
    wanted = [a, b] if operation.needed else [b]
    return lambda: torch.autograd.grad(forward(a, b), wanted, gradient)


def by_jax(operation: Operation) -> Callable[[], Any]:
    """The same by XLA, channels last."""
    rng = np.random.default_rng(0)
    a: Any
    b: Any
    a, b = (rng.normal(size=shape).astype(np.float32) for shape in operation.shapes)
    if operation.kind == "convolution":
        stride, padding, transposed = operation.settings
        a, b = a.transpose(0, 2, 3, 1), b.transpose(2, 3, 1, 0)
        sides: Any = tuple((side, side) for side in padding)
        at = jax_vae.convolutions.Geometry(stride, sides)
        if transposed:  # doubles: kernel 4, stride 2, padding 1
            at = jax_vae.convolutions.Geometry(padding=((2, 2), (2, 2)), spread=stride)
            b = np.ascontiguousarray(b.swapaxes(2, 3)[::-1, ::-1])

        def forward(a: Any, b: Any) -> Any:
            return jax_vae.convolutions.convolved(a, b, at)
    else:

        def forward(a: Any, b: Any) -> Any:
            return a @ b

    @jax.jit
    def run(a: Any, b: Any) -> Any:
        result, back = jax.vjp(forward, a, b) if operation.needed else jax.vjp(lambda b: forward(a, b), b)
        return result, back(jax.numpy.ones_like(result))

    a, b = jax.numpy.asarray(a), jax.numpy.asarray(b)
    return lambda: jax_vae.synchronize(run(a, b))


def step_of(half: Half, config: Config) -> Callable[[], Any]:
    """One epoch of STEPS training steps of a half, in its best mode."""
    count = STEPS * config.training.batch_size
    images = np.random.default_rng(0).integers(0, 256, (count, *config.image_shape), np.uint8)
    states = [half.create_state(config)]
    placed, draws = half.place_images(images, config), half.epoch_draws(config, 0, count)
    program = half.compile_epoch(states[0], placed, draws)

    def run() -> None:
        states[0], terms = program(states[0], placed, draws)
        half.synchronize(half.to_numpy(terms.total))

    return run


def seconds(run: Callable[[], Any], calls: int) -> float:
    """Of one call, the mean of several."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def main(arguments: Arguments) -> dict[str, Any]:
    files.require_folder(arguments.output, "output")
    keep_memory()
    before, found = dict(machine()), dict[str, Any]()
    for name, config in cases().items():
        counted = operations(config)
        alone = {operation: (by_torch(operation), by_jax(operation)) for operation in counted}
        steps = {half.__name__: step_of(half, config) for half in (jax_vae, torch_vae)}
        for run in (*steps.values(), *(run for pair in alone.values() for run in pair)):
            run()
        rounds = []
        for _ in range(arguments.rounds):
            each = {op: [seconds(run, CALLS) * counted[op] for run in pair] for op, pair in alone.items()}
            kernels = zip(("torch_kernels", "xla_kernels"), map(sum, zip(*each.values())))
            rounds.append({"floor": sum(map(min, each.values())), **dict(kernels)})
            rounds[-1] |= {half: seconds(run, 1) / STEPS for half, run in steps.items()}
        medians = {kind: statistics.median(of[kind] for of in rounds) for kind in rounds[0]}
        over = {half: statistics.median(of[half] / of["floor"] for of in rounds) for half in steps}
        own = {"jax_vae": "xla_kernels", "torch_vae": "torch_kernels"}
        over_own = {half: statistics.median(of[half] / of[own[half]] for of in rounds) for half in steps}
        parameters = sum(int(np.prod(shape)) for shape in jax_vae.model_shapes(config).values())
        found[name] = {
            "parameters": parameters,
            "milliseconds": {kind: round(1e3 * value, 2) for kind, value in medians.items()},
            "step_over_floor": {half: round(value, 3) for half, value in over.items()},
            "step_over_own_kernels": {half: round(value, 3) for half, value in over_own.items()},
            "rounds": rounds,
        }
        print(name, found[name]["milliseconds"], found[name]["step_over_floor"], file=sys.stderr, flush=True)
    record = {
        "command": ["python", "-m", "scripts.convolution_floor", *sys.argv[1:]],
        "framework": "; ".join(half.environment()["framework"].partition(",")[0] for half in (jax_vae, torch_vae)),
        "machine": before,
        "steps": STEPS,
        "cases": found,
    }
    if arguments.output is not None:
        files.write_json(arguments.output, record)
    return {name: case["step_over_floor"] for name, case in found.items()}


def _noise(config: Config) -> np.ndarray:
    return np.zeros((config.training.batch_size, config.noise_dim), np.float32)


if __name__ == "__main__":
    run_command(sys.modules[__name__])
