"""A folder of images, with a ``preprocessing.yaml`` beside them that says how they become arrays.

::

    input: input                 # the model's input
    size: [224, 224]             # height, width
    resize: 256                  # optional: shorter side first, then the centre crop of `size`; else plain resize
    color: RGB                   # RGB | BGR | L
    scale: 255                   # pixels are divided by this
    mean: [0.485, 0.456, 0.406]  # optional, per channel, after scaling
    std: [0.229, 0.224, 0.225]
    layout: NCHW                 # NCHW | NHWC
    labels: labels.csv           # optional: columns file,label
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from onnxpress_calibration.dataset import LABELS, Array
from onnxpress_calibration.documents import YAML_BYTES, DocumentError, parse_yaml, read_bytes, shortened
from onnxpress_calibration.errors import DataError

SPEC_FILE = "preprocessing.yaml"
SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp"})
KEYS = frozenset({"input", "size", "resize", "color", "scale", "mean", "std", "layout", "labels"})
CHUNK = 32


def accepts(text: str) -> bool:
    """Tell whether this is a folder."""
    return Path(text).is_dir()


def read(text: str) -> Iterator[dict[str, Array]]:
    """Yield the images in order of their names, `CHUNK` at a time."""
    folder = Path(text)
    spec = _spec(folder)
    labels = _labels(folder, spec)
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    if labels is not None:
        files = [file for file in files if file.relative_to(folder).as_posix() in labels]
    for start in range(0, len(files), CHUNK):
        group = files[start : start + CHUNK]
        chunk: dict[str, Array] = {spec["input"]: np.stack([_pixels(file, spec) for file in group])}
        if labels is not None:
            chunk[LABELS] = np.array([labels[file.relative_to(folder).as_posix()] for file in group])
        yield chunk


def _spec(folder: Path) -> dict[str, Any]:
    file = folder / SPEC_FILE
    if not file.is_file():
        raise DataError(f"data {folder}: a folder of images needs a {SPEC_FILE} that says how they become arrays.")
    try:
        _, spec = parse_yaml(read_bytes(file, YAML_BYTES))
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}).") from error
    except DocumentError as error:
        raise DataError(f"{file}{error}") from error
    if not isinstance(spec, dict) or not {"input", "size"} <= spec.keys() or not spec.keys() <= KEYS:
        raise DataError(f"{file}: needs the keys input and size, and knows {sorted(KEYS)}; it has {shortened(spec)}.")
    return spec


def _labels(folder: Path, spec: dict[str, Any]) -> dict[str, int] | None:
    if "labels" not in spec:
        return None
    file = folder / spec["labels"]
    try:
        with file.open(newline="") as stream:
            return {row["file"]: int(row["label"]) for row in csv.DictReader(stream)}
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{file}: needs the columns file,label with whole numbers ({error!r}).") from error


def _pixels(file: Path, spec: dict[str, Any]) -> Array:
    from PIL import Image, UnidentifiedImageError

    height, width = spec["size"]
    color = spec.get("color", "RGB")
    try:
        with Image.open(file) as opened:
            image = opened.convert("L" if color == "L" else "RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"data {file}: not a readable image ({error}).") from error
    if "resize" in spec:
        factor = spec["resize"] / min(image.size)
        image = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BILINEAR)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    else:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels: Array = np.asarray(image, np.float32)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    pixels = pixels[..., ::-1] if color == "BGR" else pixels
    pixels = pixels / np.float32(spec.get("scale", 255))
    if "mean" in spec:
        pixels = (pixels - np.array(spec["mean"], np.float32)) / np.array(spec["std"], np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1) if spec.get("layout", "NCHW") == "NCHW" else pixels)
