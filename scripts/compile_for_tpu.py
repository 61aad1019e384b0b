"""Compiles the JAX half for TPU chips without a TPU, and writes down what the compiler says of it. Nothing is run.

pip install --no-deps --target .libtpu libtpu && python -m scripts.compile_for_tpu
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vae_common import files
from vae_common.cli.command_line import run_command
from vae_common.errors import InputError


@dataclass(frozen=True)
class Arguments:
    """Compiles the JAX half's step and epoch for TPU chips without a TPU."""

    libtpu: Path = Path(".libtpu")
    """Where libtpu is installed: a folder of its own, since JAX looks for a TPU wherever it can import it."""
    topologies: tuple[str, ...] = ("v5e:1x1", "v5e:2x2")
    """Chips, by generation and shape; the batch is sharded over all chips of one."""
    batch_sizes: tuple[int, ...] = (128, 8192)
    shardings: tuple[Literal["data", "data+parameters"], ...] = ("data", "data+parameters")
    """What several chips share."""
    precisions: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
    output: Path | None = None
    """A JSON file for the record."""


KIND = "TPU compilation"


def main(arguments: Arguments) -> dict[str, Any]:
    if arguments.output is not None:
        files.require_writable(arguments.output, "output", KIND, ("programs",))
    sys.path.insert(0, str(arguments.libtpu.absolute()))
    if importlib.util.find_spec("libtpu") is None:
        mend = f"pip install --no-deps --target {arguments.libtpu} libtpu"
        raise InputError(f"libtpu: received {arguments.libtpu}, which has no libtpu package; install it: {mend}")
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "JAX_PLATFORMS": "cpu"}  # before JAX is imported
    import jax_vae
    from scripts import tpu_programs

    version = importlib.metadata.version("libtpu")
    programs = [
        tpu_programs.compiled(topology, batch, precision, sharding)
        for topology in arguments.topologies
        for sharding in (arguments.shardings if not topology.endswith("1x1") else arguments.shardings[:1])
        for batch in arguments.batch_sizes
        for precision in arguments.precisions
    ]
    record: dict[str, Any] = {
        files.KIND: KIND,
        "what": "compiled, not run",
        "framework": jax_vae.environment("cpu")["framework"],
    }
    command = ["python", "-m", "scripts.compile_for_tpu", *sys.argv[1:]]
    record |= {"command": command, "libtpu": version, "programs": programs}
    if arguments.output is not None:
        files.write_json(arguments.output, record)
    return record


if __name__ == "__main__":
    run_command(sys.modules[__name__])
