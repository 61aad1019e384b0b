"""CUDA graphs: what a step launches, recorded once and replayed. JAX has none: XLA records those of its programs."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

WARM_UP = 3


def capture(step: Callable[[], object]) -> Callable[[], object]:
    """Replays a step. It is run WARM_UP times first, on a stream of its own, as PyTorch's notes on graphs ask.

    A graph has addresses and no tensors: what the step reads and writes is held as long as its replay.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph, collects = torch.cuda.CUDAGraph(), gc.isenabled()
    gc.collect()
    gc.disable()  # an earlier graph that is let go of meanwhile would end the capture
    try:
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # JAX's threads may use the device meanwhile
            step()
    finally:
        if collects:
            gc.enable()

    def replay(held: object = step) -> None:
        graph.replay()

    return replay
