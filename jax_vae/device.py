"""Where and in which arithmetic the JAX half runs. Twin: torch_vae/device.py."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
from collections.abc import Iterator
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from vae_common import machine
from vae_common.config import Config
from vae_common.config.parts import PRECISIONS
from vae_common.errors import InputError, one_line, require

Array: TypeAlias = jax.Array
"""An array of this half."""

# jaxlib 0.10.2 computes some fused sums wrongly on a CPU (jax issue 39103); without its new fusions it does not.
_WRONG, _CURE = "0.10.2", "--xla_cpu_experimental_ynn_fusion_type="
if jaxlib.__version__ == _WRONG:  # last, where the last of a repeated flag counts; read where JAX finds its devices
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_CURE}".strip()
_FAST_MATH = "--xla_cpu_enable_fast_math"
# What holds in a block of `precision`, whatever the user has set: what would change numbers, or end a training.
_HELD: tuple[tuple[Any, Any], ...] = (
    (jax.transfer_guard, "allow"),
    (jax.disable_jit, False),
    (jax.debug_nans, False),
    (jax.debug_infs, False),
    (jax.check_tracer_leaks, False),
    (jax.no_tracing, False),
    (jax.no_execution, False),
    (jax.debug_key_reuse, False),
    (jax.thread_guard, False),
    (jax.numpy_rank_promotion, "allow"),
    (jax.numpy_dtype_promotion, "standard"),
    (jax.softmax_custom_jvp, False),
    (jax.default_device, None),
    (jax.default_prng_impl, "threefry2x32"),
    (jax.threefry_partitionable, True),
)


def select_device(name: str = "auto") -> jax.Device:
    """The device of that name; `auto` is the accelerator that JAX finds, else the CPU.

    Raises InputError where the device is not there, with what is.
    """
    require(isinstance(name, str), "device", name, "auto, cpu or an accelerator's name")
    try:
        there = jax.local_devices()  # of several processes each has its own
    except (RuntimeError, AssertionError) as error:  # JAX_PLATFORMS names what is not there
        said = f"device: JAX finds none ({one_line(error, 160)})"
        raise InputError(f"{said}; unset JAX_PLATFORMS, or name one that is there: cpu") from error
    try:
        device = there[0] if name == "auto" else jax.local_devices(backend=name)[0]
    except RuntimeError as error:
        have = ", ".join(sorted({"cpu", *(d.platform for d in there)}))
        raise InputError(f"device: received {name}, but this JAX has {have}; install a build for {name}") from error
    if device.platform == "cpu":
        _require_right_sums()
    return device


@functools.cache
def _require_right_sums() -> None:
    """Raises InputError where this JAX adds up wrongly on a CPU, as jaxlib 0.10.2 does unless it is told otherwise."""
    if jaxlib.__version__ != _WRONG:
        return
    rng = np.random.default_rng(0)
    rows, matrix = rng.normal(size=(32_769, 3)), rng.normal(size=(3, 3))
    with precision("float64"):
        sums = np.asarray(jax.jit(jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2)))(rows))
    if not np.allclose(sums, ((rows @ matrix.T) ** 2).sum(1)):
        raise InputError(
            f"jaxlib: received {_WRONG}, which computes wrong sums on a CPU, and JAX was started before this package; "
            f"import jax_vae first, set XLA_FLAGS={_CURE}, or install another version"
        )


def device_for(config: Config) -> jax.Device:
    """The config's device; InputError where it is not there or has not the arithmetic that is asked for."""
    device = select_device(config.training.device)
    flags = [flag.partition("=") for flag in os.environ.get("XLA_FLAGS", "").split()]
    if any(name == _FAST_MATH and value != "false" for name, _, value in flags):
        raise InputError(f"XLA_FLAGS: received {_FAST_MATH}, expected true arithmetic; take the flag away")
    if config.training.precision == "tf32" and device.platform not in ("cuda", "gpu"):
        raise InputError(f"precision: received tf32 on {device.platform}, which has none; use float32 or --device cuda")
    return device


def execution_for(config: Config) -> str:
    """How an epoch's steps run, `eager` or as one `program`: `auto` is resolved."""
    return "eager" if config.training.execution == "eager" else "program"


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Runs its block in true arithmetic of that precision (see `TrainingConfig.precision`).

    Training, inference and checkpoints enter it by themselves; calling a model, `loss_terms` or
    `prepare_images` directly needs it. Without it JAX turns float64 into float32 silently, and an
    accelerator may multiply float32 matrices in a shorter format. (bfloat16 operands: see `operations.affine`.)
    JAX's other settings that would change numbers or end a training are held too, and are the user's again behind it.
    """
    require(name in PRECISIONS, "precision", name, f"one of {', '.join(PRECISIONS)}")
    products = "tensorfloat32" if name == "tf32" else "highest"
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.enable_x64(name == "float64"))
        stack.enter_context(jax.default_matmul_precision(products))
        for hold, value in _HELD:
            stack.enter_context(hold(value))
        yield


def cache_programs(folder: str | None) -> None:
    """Keeps compiled programs in that folder for later processes; None keeps none."""
    jax.config.update("jax_enable_compilation_cache", folder is not None)
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", f"{folder}/jax")
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def to_device(array: np.ndarray, device: jax.Device) -> jax.Array:
    """A copy of a NumPy array on the device, in its own dtype."""
    with precision("float64" if array.dtype == np.float64 else "float32"):
        return jax.device_put(np.array(array), device)  # `jnp.array` would compile a copy for each new shape


def lend_to_device(array: np.ndarray, device: jax.Device) -> jax.Array:
    """A NumPy array on the device, in its own dtype; a processor may take its memory, which nobody may change then."""
    with precision("float64" if array.dtype == np.float64 else "float32"):
        return jax.device_put(array, device)


def to_numpy(array: jax.Array) -> np.ndarray:
    """A copy of an array of this half as a NumPy array."""
    with jax.transfer_guard("allow"):
        return np.array(array)


def synchronize(tree: Any) -> None:
    """Waits until every array of a tree has been computed."""
    jax.block_until_ready(tree)


def platform_of(device: jax.Device) -> str:
    """`cpu`, `cuda`, `tpu` or another accelerator's name."""
    return "cuda" if device.platform == "gpu" else device.platform


def free_memory(device: jax.Device) -> int | None:
    """Bytes of the device's own memory that are free; None for a CPU, which has the host's."""
    statistics = device.memory_stats() if device.platform != "cpu" else None
    if not statistics or "bytes_limit" not in statistics:
        return None
    return statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)


def peak_memory(device: jax.Device) -> int | None:
    """The most bytes of the device's own memory that arrays have held so far; None for a CPU, which has none."""
    statistics = device.memory_stats() if device.platform != "cpu" else None
    return None if statistics is None else statistics.get("peak_bytes_in_use")


def environment(name: str = "auto") -> dict[str, str]:
    """What a record must say of this half's software and hardware."""
    import flax
    import optax

    device = select_device(name)
    flags = {name: os.environ[name] for name in sorted(os.environ) if name == "XLA_FLAGS" or name.startswith("JAX_")}
    return {
        "framework": f"jax {jax.__version__}, flax {flax.__version__}, optax {optax.__version__}",
        "versions": f"python {platform.python_version()}, numpy {np.__version__}, jaxlib {jaxlib.__version__}",
        "flags": " ".join(f"{name}={value}" for name, value in flags.items()),
        "device": f"{device.platform}: {device.device_kind}",
        "threads": str(machine.threads_taken()),
    }
