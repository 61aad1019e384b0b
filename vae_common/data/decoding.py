"""One image file at a time, decoded by Pillow; and the worker that decodes many.

Run as `python -m vae_common.data.decoding` it takes what to decode as JSON on its standard input, and gives the images
as an .npy file on its standard output. A file that ends a decoder ends a worker, and not who asked for it. It imports
little, since it is started often.
"""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vae_common.errors import InputError, one_line

Fit = Literal["crop", "pad"]


@dataclass(frozen=True)
class Kind:
    """What all images of a set become."""

    channels: int
    sixteen_bits: bool
    """Whether they are kept as float32 in [0, 1]."""
    size: int
    """Height and width; 0 leaves them as they are."""
    fit: Fit


def unreadable(path: str | Path, error: object) -> InputError:
    """What is said of a file that no image can be read from."""
    return InputError(f"dataset: {one_line(path, 300)} cannot be read as an image ({one_line(error, 120)}); remove it")


def decode(path: str, kind: Kind) -> np.ndarray:
    """One image, (height, width, channels), uint8 or float32; turned as its camera says (EXIF)."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            image: Any = ImageOps.exif_transpose(opened)
            if kind.sixteen_bits:
                deep = image.mode.startswith("I")
                values = np.asarray(image.convert("I"), np.float32) / (65535 if deep else 255)
                return _fitted(Image.fromarray(values), kind, np.float32)[..., None].clip(0, 1)
            if kind.channels == 1:
                return _fitted(image.convert("L"), kind, np.uint8)[..., None]
            if kind.channels == 3 and image.mode in (
                "RGBA",
                "LA",
                "PA",
                "P",
            ):  # some have alpha, others not: over white
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return _fitted(image.convert("RGB" if kind.channels == 3 else "RGBA"), kind, np.uint8)
    except Exception as error:  # whatever a decoder raises: the file is named
        raise unreadable(path, error) from error


def _fitted(image: Any, kind: Kind, dtype: Any) -> np.ndarray:
    """The image in the set's size: scaled and cut in the middle, or scaled and padded with black."""
    from PIL import Image, ImageOps

    if kind.size and image.size != (kind.size, kind.size):
        target, method = (kind.size, kind.size), Image.Resampling.LANCZOS
        if kind.fit == "crop":
            image = ImageOps.fit(image, target, method)
        else:
            image = ImageOps.pad(image, target, method, color=0 if image.mode in ("L", "F") else None)
    return np.asarray(image, dtype)


def _work() -> None:
    asked = json.load(sys.stdin.buffer)
    kind = Kind(**asked["kind"])
    held = io.BytesIO()
    np.save(held, np.stack([decode(path, kind) for path in asked["paths"]]))
    sys.stdout.buffer.write(held.getvalue())


if __name__ == "__main__":
    try:
        _work()
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
