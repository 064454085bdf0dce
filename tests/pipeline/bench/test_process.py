import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from onnxpress.bench.messages import Load
from onnxpress.bench.process import WorkerProcess
from onnxpress.errors import ModelError, UsageError

NEGATE = "g (float[N, 3] x) => (float[N, 3] y) { y = Neg(x) }"


def request(model: Path, provider: str = "cpu") -> Load:
    np.savez(model.parent / "samples.npz", **{"0.0": np.ones((1, 3), np.float32)})
    samples = str(model.parent / "samples.npz")
    return Load(
        model=str(model), size_bytes=1000, provider=provider, threads=1, spin="stop", samples=samples, names=("x",)
    )


@contextmanager
def worker(model: Path, provider: str = "cpu") -> Iterator[WorkerProcess]:
    with closing(WorkerProcess("int8", request(model, provider), model.parent / "worker.log")) as process:
        yield process


def alive(pid: int) -> bool:
    """Tell whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_worker_does_what_it_is_asked(write: Callable[..., Path]) -> None:
    with worker(write(NEGATE)) as process:
        loaded = process.load()
        assert loaded.import_ms > 0 and loaded.session_ms > 0
        assert process.warm_up(1).run_ms > 0
        assert len(process.measure(1, 7).durations_ns) == 7
        pid = process._process.pid
    assert not alive(pid)


def test_a_worker_holds_little_more_than_the_runtime(write: Callable[..., Path]) -> None:
    # onnx, pydantic or torch would show here and hide the difference between two models
    with worker(write(NEGATE)) as process:
        peak = process.load().vm_hwm_bytes
    assert peak is None or peak < 90_000_000


def test_a_model_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    model = tmp_path / "broken.onnx"
    model.write_bytes(b"nonsense")
    with (
        worker(model) as process,
        pytest.raises(ModelError, match=r"variant 'int8': model .*broken\.onnx: .*cannot load"),
    ):
        process.load()


def test_a_wrong_provider_is_the_users_error(write: Callable[..., Path]) -> None:
    with worker(write(NEGATE), provider="gpu") as process, pytest.raises(UsageError, match="execution provider 'gpu'"):
        process.load()


def test_a_process_that_is_killed_is_reported_with_its_model(write: Callable[..., Path]) -> None:
    with worker(write(NEGATE)) as process:
        process.load()
        os.kill(process._process.pid, signal.SIGKILL)
        with pytest.raises(ModelError) as caught:
            process.measure(1, 1)
    assert "variant 'int8', model " in str(caught.value) and "died while measuring (killed by SIGKILL)" in str(
        caught.value
    )
    assert "Is there enough memory?" in str(caught.value)


def test_last_words_of_a_process_are_passed_on(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = write(NEGATE)
    (model.parent / "sitecustomize.py").write_text("import sys; sys.exit('no licence found')")
    monkeypatch.setenv("PYTHONPATH", str(model.parent))
    with worker(model) as process, pytest.raises(ModelError, match=r"died while loading the model .* no licence found"):
        process.load()


def test_a_module_in_the_current_folder_is_not_imported(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write(NEGATE)
    (model.parent / "onnxruntime.py").write_text("raise RuntimeError('this is not onnxruntime')")
    monkeypatch.chdir(model.parent)
    with worker(model) as process:
        assert process.load().session_ms > 0


@pytest.mark.parametrize("busy", [False, True])
def test_a_worker_ends_when_the_benchmark_is_killed(write: Callable[..., Path], *, busy: bool) -> None:
    model = write(NEGATE)
    code = (
        "import sys; from pathlib import Path; from onnxpress.bench.process import WorkerProcess;"
        "from onnxpress.bench.messages import Load, decode;"
        "p = WorkerProcess('int8', decode(sys.argv[1]), Path(sys.argv[2])); p.load();"
        "print(p._process.pid, flush=True);" + ("p.measure(1, 100_000)" if busy else "input()")
    )
    from onnxpress.bench.messages import encode

    parent = subprocess.Popen(
        [sys.executable, "-c", code, encode(request(model)), str(model.parent / "log")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdin is not None and parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pid)
