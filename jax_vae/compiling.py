"""What XLA's compiler is told. It has no twin: PyTorch's is told nothing."""

from __future__ import annotations

from vae_common.config import Config

from .device import device_for


def compiler_options(config: Config) -> dict[str, str | bool]:
    """On a CPU: copy insertion that sees that weights are read before Adam writes them; 2 to 4 % of a step."""
    on_cpu = device_for(config).platform == "cpu"
    return {"xla_cpu_copy_insertion_use_region_analysis": True} if on_cpu else {}
