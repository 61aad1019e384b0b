"""How configs check themselves: counts, seeds, rates, choices; NumPy's scalars are taken as Python's own."""

from __future__ import annotations

import functools
import os
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np

from vae_common.errors import require

MOST = 2**31 - 1
"""The largest count: both frameworks keep counts and shapes in 32 bits somewhere."""
LARGEST, SMALLEST = 3.4e38, 1.2e-38
"""The largest number, and the smallest above 0: of a float32."""
NEXT_TO_ONE = 1 - 2**-24
"""A decay above is 1 in a float32."""


def is_count(value: object, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= MOST


def counts(least: int) -> str:
    """What `is_count` expects, in words."""
    return f"an integer from {least} to {MOST}"


def require_count(name: str, value: object, least: int = 0, most: int = MOST) -> None:
    """Raises InputError where an argument is not an integer from `least` to `most`; NumPy's count as one."""
    number = value.item() if isinstance(value, np.integer) else value
    ok = is_count(number, least) and typing.cast(int, number) <= most
    require(ok, name, value, f"an integer from {least} to {most}")


def require_seed(value: object) -> None:
    """Raises InputError where an argument is not an integer from 0 to 2^63 - 1; NumPy's count as one."""
    number = value.item() if isinstance(value, np.integer) else value
    ok = isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 2**63
    require(ok, "seed", value, "an integer from 0 to 2^63 - 1")


def require_each_once(**values: Sequence[object]) -> None:
    """Raises InputError where one of these is empty or holds something twice."""
    for name, found in values.items():
        require(0 < len(found) == len(set(found)), name, list(found), "at least one, each once")


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_rate(value: object) -> bool:
    """0, or a number from the smallest to the largest of a float32: a smaller one would be 0 without a word."""
    return is_number(value) and (value == 0 or SMALLEST <= typing.cast(float, value) <= LARGEST)


RATE = f"0 or a number from {SMALLEST:g} to {LARGEST:g}"


class Limit(NamedTuple):
    """What a field's values have to be: `Count = Annotated[int, Limit(...)]`."""

    holds: Callable[[Any], bool]
    expected: str
    """In words."""


Count = Annotated[int, Limit(is_count, counts(1))]
"""An integer of at least 1."""
CountOrNone = Annotated[int, Limit(lambda value: is_count(value, 0), counts(0))]
"""An integer of at least 0."""
Rate = Annotated[float, Limit(is_rate, RATE)]
"""A number of at least 0."""
Positive = Annotated[
    float, Limit(lambda value: is_rate(value) and value > 0, f"a number above 0 and up to {LARGEST:g}")
]
Widths = Annotated[
    tuple[int, ...],
    Limit(
        lambda value: isinstance(value, tuple) and all(map(is_count, value)),
        "numbers of at least 1, for example 512 256",
    ),
]


class Checked:
    """Takes NumPy's scalars and lists as Python's own, checks every field that is a `Literal`, has a `Limit` or is a
    config, then runs the class's own `_check`."""

    def __post_init__(self) -> None:
        own: Any = type(self)
        for name, hint in _hints(own).items():
            value = _plain(getattr(self, name))
            limits: list[Limit] = []
            if typing.get_origin(hint) is Annotated:
                hint, *noted = typing.get_args(hint)
                limits = [note for note in noted if isinstance(note, Limit)]
            if hint is float and is_count(value, -MOST):  # 1 is 1.0: frameworks have integers of their own sizes
                value = float(value)
            object.__setattr__(self, name, value)
            if typing.get_origin(hint) is Literal:
                choices = typing.get_args(hint)
                known = isinstance(value, str) and value in choices
                require(known, name, value, f"one of {', '.join(choices)}")
            elif isinstance(hint, type) and issubclass(hint, Checked):
                require(isinstance(value, hint), name, value, f"a {hint.__name__}")
            for limit in limits:
                require(limit.holds(value), name, value, limit.expected)
        self._check()

    def _check(self) -> None:
        pass


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return tuple(_plain(item) for item in value) if isinstance(value, (list, tuple)) else value
