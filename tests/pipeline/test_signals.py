"""Every signal that ends a command ends it alike: tidied up, one line, the shell's exit code."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx.parser
import pytest

from onnxpress import signals

Compress = Callable[..., Any]


@pytest.mark.parametrize("number", signals.ENDING)
def test_a_signal_is_an_interrupt_once_and_not_again_while_it_is_tidied_up(number: signal.Signals) -> None:
    tidied = False
    with pytest.raises(KeyboardInterrupt), signals.interrupting() as arrived:
        try:
            signal.raise_signal(number)
        finally:
            for each in signals.ENDING:
                signal.raise_signal(each)
            tidied = True
    assert tidied and arrived == [number]


def test_what_was_ignored_stays_ignored_and_handlers_come_back() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.interrupting():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_interrupt_that_a_library_makes_another_error_of_is_still_one(
    compress: Compress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxpress import inspection

    def broken(*_: object) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None

    monkeypatch.setattr(inspection, "inspect", broken)
    (tmp_path / "m.onnx").touch()
    ended = compress("inspect", tmp_path / "m.onnx")
    assert (ended.code, ended.err) == (128 + signal.SIGTERM, "interrupted; finished steps are kept\n")


SLOW = """
import time, tempfile
import numpy as np
def slow():
    with open("ready", "w"): tempfile.mkdtemp()
    for _ in range(600):
        time.sleep(0.1)
        yield {"x": np.zeros((1, 3, 4, 4), np.float32)}
"""


@pytest.mark.parametrize("number", signals.ENDING)
def test_a_command_that_is_ended_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    model = """<ir_version: 8, opset_import: ["": 17]> g (float[N,3,4,4] x) => (float[N,3,4,4] y) { y = Relu(x) }"""
    place, temporary = tmp_path / "place", tmp_path / "tmp"
    place.mkdir()
    temporary.mkdir()
    (place / "m.onnx").write_bytes(onnx.parser.parse_model(model).SerializeToString())
    (place / "data.py").write_text(SLOW)
    words = ["quantize", "m.onnx", "-o", "q.onnx", "--calibration", "data.py:slow", "--json", "q.json", "-q"]
    path = os.pathsep.join(filter(None, sys.path))
    with subprocess.Popen(
        [sys.executable, "-m", "onnxpress", *words],
        cwd=place,
        env=os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not (place / "ready").exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number, said
    assert said.strip() == "interrupted; finished steps are kept"
    assert sorted(file.name for file in place.iterdir()) == ["data.py", "m.onnx", "ready"]
    assert list(temporary.iterdir()) == []
