"""The host's random numbers of an epoch, made before they are asked for: several epochs at once, by threads.

Each epoch has generators of its own, so the numbers are those of `randomness.epoch_draws`. An accelerator trains while
the next epochs are drawn. A CPU has nothing to spare meanwhile: there as many epochs as it has threads are drawn at
once, before the first of them.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from vae_common import machine, randomness
from vae_common.config import Config
from vae_common.randomness import Draws

MEMORY = 1 << 29
"""Bytes of draws that are kept for later epochs, at most."""
MOST = 4
"""Epochs that are drawn before they are asked for, at most."""
DRAWN = "shared"
"""The randomness whose numbers the host draws."""


class Ahead:
    """The draws of a training's epochs, which are asked for in order.

    Args:
        configs: of each seed that is trained at once.
        images: of the training set.
        beside: whether the device computes by itself while the host draws.
    """

    def __init__(self, configs: Sequence[Config], images: int, beside: bool):
        self.configs, self.images, self.beside = list(configs), images, beside
        self.count = epochs_at_once(configs, images, beside)
        self._made: dict[int, list[Future[Draws]]] = {}
        self._pool: ThreadPoolExecutor | None = None

    def of(self, epoch: int) -> list[Draws | None]:
        """The draws of an epoch, a seed each; None where they are not made here."""
        if self.count == 0:
            return [None] * len(self.configs)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(machine.threads_taken(), "draws")
            weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)
        if self.beside or epoch not in self._made:
            last = min(epoch + self.count + self.beside, self.configs[0].training.epochs)
            for coming in range(epoch, max(last, epoch + 1)):
                if coming not in self._made:
                    self._made[coming] = [self._pool.submit(self._draw, config, coming) for config in self.configs]
        if not self.beside:
            for futures in self._made.values():
                for future in futures:
                    future.result()
        return [future.result() for future in self._made.pop(epoch)]

    def _draw(self, config: Config, epoch: int) -> Draws:
        draws = randomness.epoch_draws(config, epoch, self.images)
        return draws._replace(noise=draws.noise.astype(config.training.dtype))


def epochs_at_once(configs: Sequence[Config], images: int, beside: bool) -> int:
    """How many epochs are drawn before they are asked for; 0 where the host draws none, or none fits."""
    if configs[0].training.randomness != DRAWN:
        return 0
    most = MOST if beside else min(MOST, machine.threads_taken())
    return min(most, MEMORY // max(1, bytes_of(configs[0], images) * len(configs)))


def bytes_of(config: Config, images: int) -> int:
    """Of an epoch's draws on the host, at most: while they are made, noise is float64."""
    pixels = math.prod(config.image_shape) if config.data.binarization == "dynamic" else 0
    return images * (4 + 8 * math.prod(config.noise_shape) + pixels)
