"""A folder of images; `onnxpress_calibration.preprocessing` says how they become arrays."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from onnxpress_calibration.dataset import LABELS, ONLY_INPUT, Array
from onnxpress_calibration.errors import DataError
from onnxpress_calibration.preprocessing import EXAMPLE, FILE, Preprocessing

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp"})
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "WEBP")
"""Pillow goes by the content, not by the name, and would start other programs for some formats."""
CHUNK = 32


def accepts(text: str) -> bool:
    """Tell whether this is a folder."""
    return Path(text).is_dir()


def read(text: str, given: Preprocessing | None = None) -> Iterator[dict[str, Array]]:
    """Yield the images in order of their names, `CHUNK` at a time.

    Args:
        text: The folder.
        given: How images become arrays; None for what the folder's own file says.

    Raises:
        DataError: there is no such file, or an image or the labels cannot be read.

    """
    folder = Path(text)
    if given is None and not (folder / FILE).is_file():
        raise DataError(
            f"data {folder}: nothing says how its images become arrays. Put a {FILE} there, or give --preprocessing "
            f"'{EXAMPLE}' (recipe: data.preprocessing)."
        )
    chosen = given or Preprocessing.read(folder / FILE)
    table = folder / chosen.labels if chosen.labels is not None else None
    labels = _labels(table) if table is not None else None
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"data {folder}: holds no images. Their names end in {', '.join(sorted(SUFFIXES))}.")
    if labels is not None:
        named = [file for file in files if file.relative_to(folder).as_posix() in labels]
        if not named:
            example = files[0].relative_to(folder).as_posix()
            raise DataError(
                f"{table}: names none of the images. They are named as they lie in {folder}, for example {example}."
            )
        files = named
    for start in range(0, len(files), CHUNK):
        group = files[start : start + CHUNK]
        chunk: dict[str, Array] = {chosen.input or ONLY_INPUT: np.stack([_pixels(file, chosen) for file in group])}
        if labels is not None:
            chunk[LABELS] = np.array([labels[file.relative_to(folder).as_posix()] for file in group])
        yield chunk


def _labels(file: Path) -> dict[str, int]:
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = csv.DictReader(stream)
            missing = {"file", "label"} - set(rows.fieldnames or ())
            if missing:
                raise DataError(f"{file}: has no column {min(missing)!r}. Its first line must be `file,label`.")
            return {row["file"]: int(row["label"]) for row in rows}
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}). Write it with the columns file,label.") from error
    except (ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{file}: labels must be whole numbers ({error}).") from error


def _pixels(file: Path, chosen: Preprocessing) -> Array:
    from PIL import Image, UnidentifiedImageError

    height, width = chosen.size
    try:
        with Image.open(file, formats=FORMATS) as opened:
            image = opened.convert("L" if chosen.color == "L" else "RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"data {file}: not a readable image ({error}). Remove it, or save it again.") from error
    if chosen.resize is not None:
        factor = chosen.resize / min(image.size)
        image = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BILINEAR)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    else:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels: Array = np.asarray(image, np.float32)
    return chosen.normalized(pixels[..., None] if pixels.ndim == 2 else pixels)
