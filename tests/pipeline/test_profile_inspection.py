"""Inspecting a profile: every number is the tensors' own, and the drawing fits them."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxpress import profile_inspection
from onnxpress_calibration.channels import ChannelStatistics
from onnxpress_calibration.profile import Profile
from onnxpress_calibration.statistics import TensorStatistics


@pytest.fixture
def path(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).normal(size=(10, 3, 500)).astype(np.float32)
    plain, split, constant = (TensorStatistics(channels=c) for c in (None, ChannelStatistics(axis=1), None))
    plain.update(np.maximum(values, 0))
    split.update(values)
    constant.update(np.full(5, 2.5, np.float32))
    tensors = {"relu": plain, "x": split, "never": TensorStatistics(), "constant": constant}
    Profile(model_sha256="m" * 64, data_sha256="d" * 64, samples=10, tensors=tensors).write(tmp_path / "p.profile")
    return tmp_path / "p.profile"


def test_the_document_agrees_with_the_values(path: Path) -> None:
    found = profile_inspection.document(Profile.read(path))
    relu, x = found["tensors"]["relu"], found["tensors"]["x"]
    values = np.random.default_rng(0).normal(size=(10, 3, 500)).astype(np.float32)
    assert (x["low"], x["high"], x["channels"], x["counted"]) == (values.min(), values.max(), 3, 15000)
    assert relu["zeros_pct"] == pytest.approx(100 * (values <= 0).mean())
    assert x["p99_99"] == pytest.approx(np.quantile(values, 0.9999), rel=0.05)
    assert sum(x["histogram"]) == 15000
    assert found["tensors"]["never"]["counted"] == 0
    json.dumps(found, allow_nan=False)


def test_compress_inspect_shows_it(compress: Callable[..., Any], path: Path, tmp_path: Path) -> None:
    ended = compress("inspect", path, "--json", tmp_path / "p.json")
    assert ended.code == 0
    assert "10 samples, 4 tensors, 1 of them by channel" in ended.out
    assert "never computed: never" in ended.out
    assert json.loads((tmp_path / "p.json").read_text())["schema"] == "onnxpress.profile/2"
    lines = {line.split()[0]: line for line in ended.out.splitlines()[4:]}
    bell = lines["x"][-profile_inspection.CELLS :]
    assert "█" in bell[8:16] and not {"█", "▇"} & {bell[0], bell[-1]}
    assert lines["relu"].rstrip()[-profile_inspection.CELLS] == "█"


def test_a_damaged_profile_is_one_line(compress: Callable[..., Any], path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])
    ended = compress("inspect", path)
    assert ended.code == 3 and ended.err.count("\n") == 1 and "truncated" in ended.err


def test_what_is_no_file_is_no_profile(compress: Callable[..., Any], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    ended = compress("inspect", tmp_path / "pipe")
    assert ended.code == 2 and "no such file" in ended.err
