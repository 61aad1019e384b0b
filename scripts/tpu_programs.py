"""The JAX half's programs for a TPU topology, as XLA compiles them on a machine that has none."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jax_vae
from jax_vae.execution import _jitted_batch_step, _jitted_epoch
from vae_common import costs
from vae_common.benchmarks import Case
from vae_common.randomness import Draws

IMAGES = 60_000
# Peak bfloat16 FLOP/s and bytes/s of one chip, by the start of its topology's name (Google's TPU v5e page).
CHIPS = {"v5e": (197e12, 819e9)}
PASSES = {"float32": 6, "bfloat16": 1}  # float32 products at JAX's "highest" precision are six bfloat16 ones


def compiled(topology: str, batch: int, precision: str) -> dict[str, Any]:
    """Compiles a step and an epoch, the batch sharded over the topology's chips; the compiler's counts of both."""
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    mesh = Mesh(np.array(devices), ("batch",))
    config = Case(batch_size=batch, precision=precision, device="cpu").config()
    steps = IMAGES // batch

    def placed(shape: tuple[int, ...], dtype: Any, *axes: str | None) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*axes)))

    state = jax.tree.map(lambda leaf: placed(leaf.shape, leaf.dtype), jax_vae.create_state(config))
    images = placed((IMAGES, *config.image_shape), np.uint8)
    rows = placed((batch, config.pixels), np.uint8)  # as many as a step reads, so that it alone is counted
    noise = (batch, config.noise_dim)
    draw = Draws(placed((batch,), np.int32, "batch"), placed(noise, np.float32, "batch"), None)
    order = placed((steps, batch), np.int32, None, "batch")
    draws = Draws(order, placed((steps, *noise), np.float32, None, "batch"), None)
    with jax_vae.precision(precision):
        step: Any = _jitted_batch_step.lower(state, rows, draw).compile()
        epoch: Any = _jitted_epoch.lower(state, images, draws).compile()
    cost, memory = step.cost_analysis(), epoch.memory_analysis()
    peak_flops, peak_bytes = CHIPS[topology.partition(":")[0]]
    flops, moved = cost["flops"], cost["bytes accessed"]
    seconds = {"compute": flops * PASSES[precision] / peak_flops, "memory": moved / peak_bytes}
    return {
        "topology": topology,
        "chips": len(devices),
        "batch_size": batch,
        "precision": precision,
        "step_of_each_chip": {"flops": flops, "bytes_accessed": moved},
        "model_flops_of_all_chips": costs.step_flops(config),
        "epoch_memory_bytes": {
            name: getattr(memory, f"{name}_size_in_bytes") for name in ("argument", "output", "alias", "temp")
        },
        "roofline": {
            "least_microseconds_a_step": 1e6 * max(seconds.values()),
            "bound_by": max(seconds, key=lambda name: seconds[name]),
            "flops_per_byte": flops / moved,
        },
    }
