"""Changes of the inputs. The teacher sees them too and says what is right, so that even a mixture has an answer.

Beyer et al. 2022, "Knowledge distillation: a good teacher is patient and consistent" (arXiv:2106.05237): the same view
for both, mixed images, and long training are what makes distillation from few samples work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from onnxpress.distillation.samples import Batch
from onnxpress.errors import UsageError
from onnxpress_calibration.dataset import Array, InputSpec
from onnxpress_calibration.errors import DataError
from onnxpress_calibration.sources.function import load_function

SHIFT = 8
"""A crop moves an image by at most this fraction of its side: 1/8, the 4 of 32 pixels usual for CIFAR."""

Augment = Callable[[Batch, np.random.Generator], Batch]


def make(names: Sequence[str] | None, inputs: Mapping[str, InputSpec], *, labelled: bool) -> list[Augment]:
    """Return the augmentations of these names, ready to be called in order with a batch and a random generator.

    Args:
        names: From the options; None chooses by the inputs.
        inputs: What the model expects.
        labelled: Labels are used: then nothing is done by default that could make them wrong.
    """
    images = [name for name, spec in inputs.items() if len(spec.shape) == 4 and spec.dtype.kind == "f"]
    if names is None:
        names = (("crop",) if labelled else ("flip", "crop", "mixup")) if len(images) == len(inputs) == 1 else ()
    made: list[Augment] = []
    for name in names:
        if ":" in name:
            made.append(_users(name, load_function(name)))
        elif name != "none":
            if not images:
                raise UsageError(f"augment {name}: the model has no float input of four axes, [samples, channels, …].")
            if name == "mixup" and labelled:
                raise UsageError("augment mixup: mixes images, for which the labels are wrong. Leave one of them out.")
            made.append(_on_images(BUILT_IN[name], images))
    return made


def _users(name: str, function: Callable[..., Batch]) -> Augment:
    def augment(batch: Batch, random: np.random.Generator) -> Batch:
        changed = function(batch, random)
        if not isinstance(changed, Mapping) or changed.keys() != batch.keys():
            raise DataError(f"augment {name}: must return a dict with the arrays {sorted(batch)}.")
        return dict(changed)

    return augment


def _on_images(change: Callable[[Array, np.random.Generator], Array], images: Sequence[str]) -> Augment:
    def augment(batch: Batch, random: np.random.Generator) -> Batch:
        return batch | {name: change(batch[name], random) for name in images}

    return augment


def _flip(images: Array, random: np.random.Generator) -> Array:
    """Mirror half of the images left to right."""
    turned = random.random(len(images)) < 0.5
    return np.where(turned[:, None, None, None], images[..., ::-1], images)


def _crop(images: Array, random: np.random.Generator) -> Array:
    """Move each image by a few pixels; its edges are mirrored."""
    height, width = images.shape[2:]
    down, right = height // SHIFT, width // SHIFT
    padded = np.pad(images, ((0, 0), (0, 0), (down, down), (right, right)), mode="reflect")
    tops = random.integers(0, 2 * down + 1, len(images))
    lefts = random.integers(0, 2 * right + 1, len(images))
    corners = zip(padded, tops, lefts, strict=True)
    return np.stack([image[:, top : top + height, left : left + width] for image, top, left in corners])


def _mixup(images: Array, random: np.random.Generator) -> Array:
    """Mix each image with another one, in proportions drawn evenly (Zhang et al. 2018, arXiv:1710.09412)."""
    share = random.random((len(images), 1, 1, 1), dtype=np.float32).astype(images.dtype)
    mixed: Array = share * images + (1 - share) * images[random.permutation(len(images))]
    return mixed


BUILT_IN = {"crop": _crop, "flip": _flip, "mixup": _mixup}
