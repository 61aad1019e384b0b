"""The processor that a program runs on: what it can, who else uses it, and how many threads the halves take.

Nothing here imports a framework: both read the variables that `settle` sets when they are loaded.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import statistics
import sys
import time
from pathlib import Path

from vae_common.errors import require

INSTRUCTIONS = (
    "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16",
    "asimd", "sve", "bf16", "i8mm",
)  # fmt: skip
"""What decides how fast matrices are multiplied, as Linux names it."""
BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")
"""Those that multiply bfloat16."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")
"""Who reads how many threads to take: PyTorch, its products, NumPy's, and JAX (the last)."""
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""Who has set one of these has chosen how PyTorch's threads wait."""
KEPT = {"MALLOC_MMAP_THRESHOLD_": (-3, 32 << 20), "MALLOC_TRIM_THRESHOLD_": (-1, 512 << 20)}
"""Variables of the GNU C library, what `mallopt` calls them, and bytes: arrays of no more come from its heap (there is
no larger value), and so much may lie free at the heap's end."""
LOOKS, BETWEEN = 5, 0.01
"""How often the system is asked who else runs, and seconds between."""


def instructions() -> tuple[str, ...]:
    """Those of INSTRUCTIONS that the processor has; none where the system does not say."""
    has = (_told("flags") or _told("Features")).split()
    return tuple(name for name in INSTRUCTIONS if name in has)


def processor() -> str:
    """What the processor is called."""
    return _told("model name") or platform.processor()


def _told(name: str) -> str:
    """What Linux says of the first processor under that name; nothing where it does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(name):
                return line.partition(":")[2].strip()
    return ""


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for it, or the system does not say which it has."""
    found = instructions()
    return not found or any(name in found for name in BFLOAT16)


def cores() -> int:
    """Processors that this program may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_taken() -> int:
    """How many each half takes on a processor."""
    own = os.environ.get("NPROC") or os.environ.get("OMP_NUM_THREADS") or ""
    return int(own) if own.isdecimal() and int(own) > 0 else cores()


def others_running() -> int:
    """Threads of other programs that want a processor now, the median of a few looks; 0 where the system is silent."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        for look in range(LOOKS):
            if look:
                time.sleep(BETWEEN)
            running, _, _ = Path("/proc/loadavg").read_text(encoding="utf-8").split()[3].partition("/")
            found.append(max(0, int(running) - 1))  # one is this one, which asks
    return round(statistics.median(found)) if found else 0


def settle(threads: int | None = None) -> None:
    """Decides how many threads both halves take, and how they wait for each other; nothing once either is loaded.

    Args:
        threads: by default what OMP_NUM_THREADS says, or else every processor.

    PyTorch's threads spin while they wait, which is fastest where nobody else wants their processor, and slower by far
    where somebody does: there they are made to sleep, unless the user has chosen. No result changes.

    Raises:
        InputError: where there are not so many processors, or it is too late to choose.
    """
    loaded = [name for name in ("jax", "torch") if name in sys.modules]
    if threads is not None:
        require(not loaded, "threads", f"{threads} once {' and '.join(loaded)} is loaded", "a number before that")
        require(
            0 < threads <= cores(), "threads", threads, f"an integer from 1 to {cores()}: this machine's processors"
        )
        os.environ |= dict.fromkeys(THREADS, str(threads))
    if loaded:
        return
    os.environ |= equal_threads()
    taken = threads_taken()
    chosen = taken == 1 or any(name in os.environ for name in WAITING)
    if not chosen and others_running() + taken > (os.cpu_count() or 1):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def keep_memory() -> None:
    """Has memory that arrays give back stay with this process, for the next arrays: where PyTorch makes them.

    The GNU C library gives it to the system, and gets it again page by page, cleared: in a step of large tensors that
    may take a tenth of the time. Arrays of up to 32 MiB are kept; free memory at the end of the heap beyond 512 MiB is
    given back. No result changes. Nothing where the C library is another, or the user has chosen what it does.
    """
    for name in kept_memory():
        if not ctypes.CDLL(None).mallopt(*KEPT[name]):
            return


def kept_memory() -> dict[str, str]:
    """The variables that have a program keep it from its start; none where keep_memory does nothing."""
    if KEPT.keys() & os.environ.keys() or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return {}
    if platform.libc_ver()[0] != "glibc":
        return {}
    return {name: str(value) for name, (_, value) in KEPT.items()}


def equal_threads() -> dict[str, str]:
    """The variable that gives JAX no more threads than OMP_NUM_THREADS gives PyTorch, unless it is set already."""
    own = os.environ.get("OMP_NUM_THREADS", "")
    limited = own.isdecimal() and int(own) > 0
    return {"NPROC": os.environ.get("NPROC") or own} if limited else {}


def joules() -> dict[str, float]:
    """What processors and the first NVIDIA accelerator have used since some moment, where the system counts it.

    `cpu` by Intel's RAPL counters, `gpu` by NVML's; what is not counted is missing.
    """
    found: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError):
        packages = [*Path("/sys/class/powercap").glob("intel-rapl:[0-9]")]
        counted = [int((package / "energy_uj").read_text(encoding="utf-8")) for package in packages]
        found |= {"cpu": sum(counted) / 1e6} if counted else {}
    with contextlib.suppress(OSError, AttributeError):
        library, device, used = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_void_p(), ctypes.c_ulonglong()
        library.nvmlInit_v2()
        library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device))
        if library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(used)) == 0:
            found["gpu"] = used.value / 1e3
    return found


def facts() -> dict[str, str]:
    """What a record must say of the processor."""
    return {
        "instructions": " ".join(instructions()),
        "load": f"{os.getloadavg()[0]:.1f} before, of {os.cpu_count()} processors",
    }
