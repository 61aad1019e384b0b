"""What a user is told: one line that says what was received, what was expected, and how to mend it."""

from __future__ import annotations

MOST = 1000
"""Characters of a message; a longer one loses its middle."""


class InputError(ValueError):
    """What a user gave cannot be used. One line: what was received, what was expected, the mend."""


def require(ok: bool, name: str, received: object, expected: str) -> None:
    """Raises InputError unless it is so."""
    if not ok:
        raise InputError(f"{name}: received {shown(received)}, expected {expected}")


def shown(value: object) -> str:
    """A value as a message shows it: its `repr`, on one line, its middle left out where it is long."""
    return one_line(repr(value), 120)


def one_line(text: object, most: int = MOST) -> str:
    """Text as one line for any terminal and figure: what cannot be printed is escaped, a long middle left out."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    if len(line) <= most:
        return line
    tail = most // 3
    return f"{line[: most - tail]} ... ({len(line)} characters) ... {line[len(line) - tail :]}"
