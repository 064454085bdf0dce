"""The real models, their samples and metrics, for the benchmarks of this folder.

``ONNXPRESS_REAL_DATA`` names the folder with the models (default ``../shared/real`` beside the checkout); nothing of it
is part of the project.
"""

from __future__ import annotations

import os
import sys
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from onnxpress_calibration.dataset import Dataset
from onnxpress_calibration.sources.function import load_function

ROOT = Path(__file__).resolve().parents[2]
Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One model with what it is calibrated and judged on."""

    name: str
    model: Path
    calibration: Callable[[], Arrays]
    test: Callable[[], Arrays]
    metric: str | None
    """As ``compress evaluate`` takes it; None where only fidelity can be told."""
    mask: str | None = None
    """The input that is 0 where an output position means nothing (padding)."""
    streams: bool = False
    """Whether a run's state goes into the next run."""

    def data(self, part: str) -> Dataset:
        """Return the samples of a part, ``calibration`` or ``test``."""
        read = self.calibration if part == "calibration" else self.test
        return Dataset(origin=f"{self.name} {part}", read=lambda: [read()])

    def feeds(self, part: str) -> Iterator[Arrays]:
        """Yield one run's inputs after the other, as a service would see them."""
        arrays = self.calibration() if part == "calibration" else self.test()
        for index in range(len(next(iter(arrays.values())))):
            yield {name: value[index : index + 1] for name, value in arrays.items() if name != "y"}

    def outputs(self, session: Any, part: str = "test") -> Iterator[Arrays]:  # noqa: ANN401 - no stubs
        """Yield the outputs of an onnxruntime session for each of `feeds`, padding cut away."""
        names = [output.name for output in session.get_outputs()]
        if self.streams:
            state = np.zeros((2, 1, 128), np.float32)
            for feed in self.feeds(part):
                given = session.run(None, feed | {"state": state, "sr": feed["sr"].reshape(())})
                state = given[1]
                yield {names[0]: given[0]}
            return
        for feed in self.feeds(part):
            given = dict(zip(names, session.run(None, feed), strict=True))
            if self.mask is not None:
                given = {name: value[feed[self.mask] > 0] for name, value in given.items()}
            yield given


def real_folder() -> Path:
    """Return the folder of the real models, or end with a line that says what is missing."""
    found = Path(os.environ.setdefault("ONNXPRESS_REAL_DATA", str(ROOT.parent / "shared" / "real")))
    if not (found / "load.py").is_file():
        sys.exit(f"skipped: there is no {found / 'load.py'} (set ONNXPRESS_REAL_DATA)")
    return found


@cache
def cases() -> dict[str, Case]:
    """Return all cases by name."""
    file = real_folder() / "load.py"

    def load(name: str, part: slice = slice(None)) -> Callable[[], Arrays]:
        function = load_function(f"{file}:{name}")
        return lambda: {key: value[part] for key, value in function().items()}

    def case(
        name: str, calibration: Callable[[], Arrays], test: Callable[[], Arrays], metric: str | None = None
    ) -> Case:
        models = sys.modules[load_function(f"{file}:sts").__module__].MODELS
        mask = "attention_mask" if name == "minilm" else None
        return Case(
            name=name,
            model=models[name],
            calibration=calibration,
            test=test,
            metric=metric,
            mask=mask,
            streams=name == "silero",
        )

    sentences = load("sts_calibration")
    found = [
        case("squeezenet", load("imagenet_calibration"), load("imagenet_test"), "top1"),
        case("resnet20", load("cifar_calibration"), load("cifar_test"), "top1"),
        case("resnet56", load("cifar_calibration"), load("cifar_test"), "top1"),
        case("kws", load("kws_calibration"), load("kws_test"), "top1"),
        case("magika", load("magika", slice(0, 50)), load("magika", slice(50, None)), "top1"),
        case("mnist", load("mnist_calibration"), load("mnist_test"), "top1"),
        case("minilm", sentences, sentences, f"{ROOT / 'benchmarks' / 'real' / 'minilm.py'}:sts"),
        case("fastestdet", load("coco64", slice(0, 32)), load("coco64", slice(32, None))),
        case("silero", lambda: _speech(slice(0, 200)), lambda: _speech(slice(200, 1000))),
    ]
    return {each.name: each for each in found}


def _speech(part: slice) -> Arrays:
    """Return windows of 512 samples of 16 kHz speech behind the 64 before each, and an empty state."""
    with wave.open(str(real_folder() / "audio" / "silero_test_16k_60s.wav")) as file:
        sound = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
    padded = np.concatenate([np.zeros(64, np.float32), sound])
    starts = np.arange(0, len(sound) - 511, 512)
    windows = np.stack([padded[start : start + 576] for start in starts])[part]
    state, rate = np.zeros((len(windows), 2, 1, 128), np.float32), np.full(len(windows), 16000)
    return {"input": windows, "state": state, "sr": rate}
