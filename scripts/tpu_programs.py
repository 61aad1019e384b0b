"""The JAX half's programs for a TPU topology, as XLA compiles them on a machine that has none."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jax_vae
from jax_vae.execution import jitted_batch_step, jitted_epoch
from vae_common.benchmark import costs
from vae_common.benchmark.cases import Case
from vae_common.errors import InputError
from vae_common.randomness import Draws

IMAGES = 60_000
CHIPS = {"v5e": (197e12, 819e9)}  # peak bfloat16 FLOP/s and bytes/s of one (Google's TPU v5e page)
PASSES = {"float32": 6, "bfloat16": 1}  # float32 products at JAX's "highest" precision are six bfloat16 ones


def compiled(topology: str, batch: int, precision: str) -> dict[str, Any]:
    """Compiles a step and an epoch, the batch sharded over the topology's chips; the compiler's counts of both."""
    if topology.partition(":")[0] not in CHIPS:
        raise InputError(f"topologies: received {topology}, expected a shape of {', '.join(CHIPS)}: v5e:2x2")
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    if batch % len(devices):
        raise InputError(f"batch_sizes: received {batch}, expected a multiple of the {len(devices)} chips")
    mesh = Mesh(np.array(devices), ("batch",))
    config, steps = Case(batch_size=batch, precision=precision, device="cpu").config(), IMAGES // batch

    def placed(shape: tuple[int, ...], dtype: Any, *axes: str | None) -> Any:
        struct: Any = jax.ShapeDtypeStruct  # JAX leaves them untyped
        spec: Any = PartitionSpec
        return struct(shape, dtype, sharding=NamedSharding(mesh, spec(*axes)))

    state = jax.tree.map(lambda leaf: placed(leaf.shape, leaf.dtype), jax_vae.create_state(config))
    images = placed((IMAGES, *config.image_shape), np.uint8)
    rows = placed((batch, config.pixels), np.uint8)  # as many as a step reads, so that it alone is counted
    noise = placed((batch, config.noise_dim), np.float32, "batch")
    draw = Draws(placed((batch,), np.int32, "batch"), noise, None)
    draws = jax.tree.map(lambda d: placed((steps, *d.shape), d.dtype, None, "batch"), draw)
    with jax_vae.precision(precision):
        step: Any = jitted_batch_step.lower(state, rows, draw).compile()
        epoch: Any = jitted_epoch.lower(state, images, draws).compile()
    memory, (peak_flops, peak_bytes) = epoch.memory_analysis(), CHIPS[topology.partition(":")[0]]
    flops, moved = (step.cost_analysis()[name] for name in ("flops", "bytes accessed"))
    seconds = {"compute": flops * PASSES[precision] / peak_flops, "memory": moved / peak_bytes}
    epoch_bytes = {n: getattr(memory, f"{n}_size_in_bytes") for n in ("argument", "output", "alias", "temp")}
    roofline = {"microseconds_a_step": 1e6 * max(seconds.values()), "bound_by": max(seconds, key=lambda n: seconds[n])}
    return {
        "topology": topology,
        "chips": len(devices),
        "batch_size": batch,
        "precision": precision,
        "step_of_each_chip": {"flops": flops, "bytes_accessed": moved},
        "model_flops_of_all_chips": costs.step_flops(config),
        "epoch_memory_bytes": epoch_bytes,
        "roofline": roofline | {"flops_per_byte": flops / moved},  # bytes between on-chip memories count too
    }
