"""The JAX half's programs for a TPU topology, as XLA compiles them on a machine that has none."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import replace
from typing import Any, cast

import jax
import numpy as np
from jax.experimental import topologies

import jax_vae
from jax_vae import meshes
from jax_vae.execution import jitted_batch_step, jitted_epoch
from vae_common.benchmark import costs
from vae_common.benchmark.cases import Case
from vae_common.errors import InputError
from vae_common.randomness import Draws

IMAGES = 60_000
CHIPS = {"v5e": (197e12, 819e9)}  # peak bfloat16 FLOP/s and bytes/s of one (Google's TPU v5e page)
PASSES = {"float32": 6, "bfloat16": 1}  # float32 products at JAX's "highest" precision are six bfloat16 ones


def compiled(topology: str, batch: int, precision: str, sharding: Any = "data") -> dict[str, Any]:
    """Compiles a step and an epoch as they run on the topology's chips together; the compiler's counts of both, and the
    collectives that it chose for the step."""
    if topology.partition(":")[0] not in CHIPS:
        raise InputError(f"topologies: received {topology}, expected a shape of {', '.join(CHIPS)}: v5e:2x2")
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    config, steps = Case(batch_size=batch, precision=precision, device="cpu").config(), IMAGES // batch
    config = replace(config, training=replace(config.training, sharding=sharding))
    state = jax_vae.create_state(config)
    meshes.use(len(devices), devices)
    try:
        if len(devices) == 1:
            held = spread = cast(Any, jax.sharding.SingleDeviceSharding(devices[0]))
        else:
            held, spread = meshes.placement_for(config), meshes.parameter_placement(config)

        def placed(shape: tuple[int, ...], dtype: Any) -> Any:
            struct: Any = jax.ShapeDtypeStruct  # JAX leaves them untyped
            return struct(shape, dtype, sharding=held)

        def parameter(leaf: Any) -> Any:
            struct: Any = jax.ShapeDtypeStruct
            own = spread.of(leaf.shape) if isinstance(spread, meshes.Shards) else held
            return struct(leaf.shape, leaf.dtype, sharding=own)

        state = jax.tree.map(parameter, state)
        images = placed((IMAGES, *config.image_shape), np.uint8)
        rows = placed((batch, config.pixels), np.uint8)  # as many as a step reads, so that it alone is counted
        draw = Draws(placed((batch,), np.int32), placed((batch, config.noise_dim), np.float32), None)
        draws = jax.tree.map(lambda d: placed((steps, *d.shape), d.dtype), draw)
        with jax_vae.precision(precision):
            step: Any = jitted_batch_step.lower(state, rows, draw).compile()
            epoch: Any = jitted_epoch.lower(state, images, draws).compile()
    finally:
        meshes.use(1)
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
        "sharding": sharding,
        "step_of_each_chip": {"flops": flops, "bytes_accessed": moved},
        "collectives_of_a_step": collectives(step.as_text()),
        "model_flops_of_all_chips": costs.step_flops(config),
        "epoch_memory_bytes": epoch_bytes,
        "roofline": roofline | {"flops_per_byte": flops / moved},  # bytes between on-chip memories count too
    }


WIDTHS = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "f64": 8, "s64": 8, "u64": 8}
"""Bytes of XLA's types."""
_COLLECTIVE = re.compile(
    r"= (?P<shape>.*?) (?P<name>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\("
)


def collectives(program: str) -> dict[str, dict[str, int]]:
    """By name, how many of a compiled program's operations speak to other chips, and the bytes of their results."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: {"operations": 0, "bytes": 0})
    for line in program.splitlines():
        match = _COLLECTIVE.search(line)
        if match:
            arrays = re.findall(r"(\w+)\[([\d,]*)\]", match["shape"])
            sizes = [math.prod(map(int, filter(None, dims.split(",")))) * WIDTHS.get(kind, 0) for kind, dims in arrays]
            found[match["name"]]["operations"] += 1
            found[match["name"]]["bytes"] += sum(sizes)
    return dict(found)
