"""Where and in which arithmetic the PyTorch half runs. Twin: jax_vae/device.py."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch

from vae_common.config import Config
from vae_common.config.parts import PRECISIONS
from vae_common.errors import InputError, require
from vae_common.files import temporary_programs

Array: TypeAlias = torch.Tensor
"""An array of this half."""

_BACKENDS: Any = torch.backends
# Where PyTorch keeps how far float32 products may be shortened: in general, for a library, for an operation of it. Each
# that says "none" follows what stands above it.
_ABOVE = (_BACKENDS, _BACKENDS.cudnn, _BACKENDS.mkldnn)
_PRODUCTS = (_BACKENDS.cuda.matmul, _BACKENDS.mkldnn.matmul)
_OPERATIONS = (
    *_PRODUCTS, _BACKENDS.cudnn.conv, _BACKENDS.cudnn.rnn, _BACKENDS.mkldnn.conv, _BACKENDS.mkldnn.rnn
)  # fmt: skip
# Of `set_float32_matmul_precision`, which stands beside them: what CUDA's and oneDNN's products are then set to.
_LEGACY = {"highest": ("ieee", "ieee"), "high": ("tf32", "tf32"), "medium": ("tf32", "bf16")}
_LEGACY_CUDNN = (("tf32", "tf32"), ("none", "none"))
_SUBNORMAL = np.nextafter(np.float64(0), np.float64(1))


def select_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` is the accelerator that PyTorch finds, else the CPU.

    Raises InputError where the device is not there, with what is.
    """
    require(isinstance(name, str), "device", name, "auto, cpu or an accelerator's name")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if there["cuda"] else "cpu")  # float64 does not exist on MPS
    if not there.get(name, False):
        have = ", ".join(kind for kind, found in there.items() if found)
        raise InputError(f"device: received {name}, but this PyTorch has {have}; install a build for {name}")
    return torch.device(name)


def device_for(config: Config) -> torch.device:
    """The config's device; InputError where it is not there or has not what is asked for of it."""
    device, training = select_device(config.training.device), config.training
    if training.precision == "tf32" and device.type != "cuda":
        raise InputError(f"precision: received tf32 on {device.type}, which has none; use float32 or --device cuda")
    if training.precision == "float64" and device.type == "mps":
        raise InputError("precision: received float64 on mps, which has none; use float32 or --device cpu")
    if training.execution == "graph" and device.type != "cuda":
        raise InputError(f"execution: received graph on {device.type}; graphs are CUDA's: use compile, eager or auto")
    for name in ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"):
        if os.environ.get(name, "STRICT").upper() not in ("", "STRICT"):
            raise InputError(f"{name}: received {os.environ[name]}, expected true arithmetic; unset it")
    if training.execution == "compile" and device.type == "cpu":
        _require_compiler()
    return device


def _require_compiler() -> None:
    """Raises InputError where torch.compile would find no C++ compiler."""
    usual = ["clang++"] if sys.platform == "darwin" else ["g++"]
    wanted = [os.environ["CXX"]] if os.environ.get("CXX") else usual
    if not any(shutil.which(name) for name in wanted):
        raise InputError(
            f"execution: received compile, which needs a C++ compiler, and {' and '.join(wanted)} cannot be found; "
            "install one, or use --execution eager"
        )


def execution_for(config: Config) -> str:
    """How an epoch's steps run on the config's device, `auto` resolved: eager, compile, graph or `compiled graph`.

    Of a stream none are captured: a graph is of one set of images.
    """
    chosen, on_cuda = config.training.execution, device_for(config).type == "cuda" and not config.data.stream
    if chosen == "auto":
        return "graph" if on_cuda else "eager"
    return "compiled graph" if chosen == "compile" and on_cuda else chosen


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Runs its block in true arithmetic of that precision (see `TrainingConfig.precision`).

    Training, inference and checkpoints enter it by themselves; calling a model, `loss_terms` or
    `prepare_images` directly needs it. PyTorch keeps the dtype of its tensors by itself; what it may
    shorten is the arithmetic of float32 products, also on CPUs that have bfloat16. (bfloat16 operands: see
    `operations.affine`.) PyTorch's other settings that would change numbers or end a training are held too, and
    are the user's again behind it.
    """
    require(name in PRECISIONS, "precision", name, f"one of {', '.join(PRECISIONS)}")
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.autograd.set_detect_anomaly(False))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        stack.enter_context(_without_subnormals())
        _start_threads()
        stack.enter_context(_true_products(tf32=name == "tf32"))
        yield


@contextlib.contextmanager
def _without_subnormals() -> Iterator[None]:
    """Takes subnormal numbers for zeros, as XLA does on a CPU: moments that fade become such, and they are slow."""
    ours = _SUBNORMAL * 1.0 != 0
    if ours:
        torch.set_flush_denormal(True)
    try:
        yield
    finally:
        if ours:
            torch.set_flush_denormal(False)


@functools.cache
def _start_threads() -> None:
    """Starts PyTorch's own threads where subnormal numbers are zeros: they keep what holds where they are started."""
    torch.zeros(2**16 * torch.get_num_threads(), device="cpu").add_(1)


@contextlib.contextmanager
def _true_products(tf32: bool) -> Iterator[None]:
    """Sets every switch that shortens float32 products, old and new, and puts each back as it was."""
    matmul, cudnn = _BACKENDS.cuda.matmul, _BACKENDS.cudnn
    above = []
    for place in _ABOVE:  # from the top: what is below then shows its own value, and not what it inherits
        above.append(place.fp32_precision)
        place.fp32_precision = "none"
    own = [operation.fp32_precision for operation in _OPERATIONS]
    legacy, shortened_cudnn = _legacy(), _legacy_cudnn()
    reduced = matmul.allow_bf16_reduced_precision_reduction
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    cudnn.allow_tf32 = tf32
    matmul.allow_bf16_reduced_precision_reduction = False
    for operation in (_BACKENDS.mkldnn.matmul, _BACKENDS.mkldnn.conv, _BACKENDS.mkldnn.rnn):
        operation.fp32_precision = "ieee"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(legacy)
        cudnn.allow_tf32 = shortened_cudnn
        matmul.allow_bf16_reduced_precision_reduction = reduced
        for operation, value in zip(_OPERATIONS, own):
            operation.fp32_precision = value
        for place, value in reversed(list(zip(_ABOVE, above))):  # oneDNN's own switch sets the general one, too
            place.fp32_precision = value


def _legacy() -> str:
    """What `set_float32_matmul_precision` was last given."""
    return _told(torch.get_float32_matmul_precision, _PRODUCTS, _LEGACY.values())


def _legacy_cudnn() -> bool:
    """What `cudnn.allow_tf32` was last given."""
    return _told(lambda: _BACKENDS.cudnn.allow_tf32, (_BACKENDS.cudnn.conv, _BACKENDS.cudnn.rnn), _LEGACY_CUDNN)


def _told(read: Callable[[], Any], places: Iterable[Any], agreeing: Iterable[tuple[str, str]]) -> Any:
    """An old switch, which PyTorch tells only beside new ones that agree with it: these are tried in turn."""
    for values in [(), *agreeing]:
        for place, value in zip(places, values):
            place.fp32_precision = value
        with contextlib.suppress(RuntimeError):
            return read()
    raise AssertionError("unreachable")


def cache_programs(folder: str | None) -> None:
    """Keeps compiled programs in that folder for later processes; None keeps none. Before the first compilation."""
    torch.compiler.config.force_disable_caches = folder is None
    if folder is not None:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}/torch"
    elif "TORCHINDUCTOR_CACHE_DIR" not in os.environ:  # else under a name in /tmp that anybody can guess, and fill
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(temporary_programs())


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A copy of a NumPy array on the device, in its own dtype."""
    with torch.inference_mode(False), _without_subnormals():  # a tensor made in that mode can never be trained on
        _start_threads()
        return torch.tensor(np.asarray(array, order="C"), device=device)


def lend_to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A NumPy array on the device, in its own dtype; a processor may take its memory, which nobody may change then."""
    with torch.inference_mode(False), _without_subnormals():
        _start_threads()
        return torch.from_numpy(np.require(array, requirements=["C", "W"])).to(device)


def to_numpy(array: torch.Tensor) -> np.ndarray:
    """A copy of an array of this half as a NumPy array."""
    return array.detach().cpu().numpy().copy(order="C")


def synchronize(tree: Any) -> None:
    """Waits until everything that was queued on the accelerator has been computed."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    if torch.backends.mps.is_available():
        torch.mps.synchronize()


def platform_of(device: torch.device) -> str:
    """`cpu`, `cuda`, `mps` or another accelerator's name."""
    return device.type


def free_memory(device: torch.device) -> int | None:
    """Bytes of the device's own memory that are free; None for a CPU, which has the host's."""
    if device.type != "cuda":
        return None
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by PyTorch, for what comes next
    return torch.cuda.mem_get_info(device)[0] + kept


def peak_memory(device: torch.device) -> int | None:
    """The most bytes of the device's own memory that tensors have held so far; None for a CPU, which has none."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def environment(name: str = "auto") -> dict[str, str]:
    """What a record must say of this half's software and hardware."""
    device = select_device(name)
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    names = ("TORCH", "PYTORCH", "OMP_", "GOMP_", "MKL_", "ONEDNN_", "DNNL_", "NVIDIA_TF32")
    flags = {name: os.environ[name] for name in sorted(os.environ) if name.startswith(names)}
    return {
        "framework": f"torch {torch.__version__}",
        "versions": f"python {platform.python_version()}, numpy {np.__version__}",
        "flags": " ".join(f"{name}={value}" for name, value in flags.items() if name != "TORCHINDUCTOR_CACHE_DIR"),
        "device": f"{device.type}: {kind}",
        "threads": str(torch.get_num_threads()),
    }
