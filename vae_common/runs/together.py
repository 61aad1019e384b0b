"""What the processes of one training do as one: an error of one is an error of all, and the first alone speaks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from vae_common.backend import Half
from vae_common.errors import InputError
from vae_common.progress import Progress


def writes(half: Half) -> bool:
    """Whether this process is the one that writes files and speaks."""
    return half.distributed.world().rank == 0


@contextlib.contextmanager
def together(half: Half) -> Iterator[None]:
    """Runs a block in which the processes do not speak to each other; where one has an error all of them end.

    The first raises InputError with what was met first, the others leave without a word.
    """
    met: Exception | None = None
    try:
        yield
    except (InputError, OSError) as error:
        if half.distributed.world().size == 1:
            raise
        met = error
    if half.distributed.world().size == 1:
        return
    said = None if met is None else str(met)
    found = half.distributed.agree(said)
    if found:
        if writes(half):
            raise InputError(found[0]) from met
        raise SystemExit(2)


def of_the_first(half: Half, value: str) -> str:
    """What the first process has, in all of them."""
    if half.distributed.world().size == 1:
        return value
    return half.distributed.agree(value if writes(half) else None)[0]


class Silent(Progress):
    """Progress that is not shown."""

    def __init__(self) -> None:
        self.bar = None

    def update(self, count: int = 1, note: str = "") -> None: ...
