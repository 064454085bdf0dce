"""The parent that watches: what never ends, crashes or takes all memory is one line; an interrupt is heard at once."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxpress import watch
from onnxpress.bench.messages import Load
from onnxpress.bench.process import WorkerProcess
from onnxpress.errors import ModelError
from onnxpress.watch import VARIABLE, Board, Limit, allowed_s

ENDLESS = """<ir_version: 10, opset_import: ["": 21]> g (float[N,8] x) => (float[N,8] out)
<int64 trips = {4611686018427387904}, bool go = {1}> {
    out = Loop<body = b (int64 i, bool ci, float[N,8] v) => (bool co, float[N,8] vo) {
        co = Identity(ci)
        vo = Relu(v)
    }>(trips, go, x)
}"""
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is divided here")


def environment(seconds: float) -> dict[str, str]:
    return os.environ | {VARIABLE: str(seconds), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def script(code: str, seconds: float = 1) -> subprocess.CompletedProcess[str]:
    """Run code in a child that is watched as ``compress it``."""
    begin = "import os, signal, sys, time\nfrom onnxpress import watch\n"
    whole = begin + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", whole], env=environment(seconds), capture_output=True, text=True)


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    onnx.save(onnx.parser.parse_model(ENDLESS), tmp_path / "m.onnx")
    return tmp_path


def test_a_run_that_never_ends_is_stopped(endless: Path) -> None:
    words = ["export", "m.onnx", "-o", "o.onnx"]
    ended = subprocess.run(
        [sys.executable, "-m", "onnxpress", *words], cwd=endless, env=environment(0.5), capture_output=True, text=True
    )
    assert ended.returncode == 3
    assert ended.stderr.startswith(
        "error: compress export m.onnx -o o.onnx: running the model in onnxruntime does not end"
    )
    assert ended.stderr.count("\n") == 1 and f"{VARIABLE}=600" in ended.stderr
    assert [file.name for file in endless.iterdir()] == ["m.onnx"]


def test_an_interrupt_is_heard_in_native_code(endless: Path) -> None:
    np.savez(endless / "d.npz", x=np.ones((2, 8), np.float32))
    command = [sys.executable, "-m", "onnxpress", "evaluate", "m.onnx", "--data", "d.npz"]
    process = subprocess.Popen(command, cwd=endless, env=environment(600), stderr=subprocess.PIPE, text=True)
    child = _child(process.pid)
    while watch._computed_s(child) < 2.5:  # it is in the loop by then
        time.sleep(0.05)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    error = process.communicate()[1]
    assert process.returncode == 130 and time.monotonic() - began < 5
    assert error == "interrupted; finished steps are kept\n"
    assert not Path(f"/proc/{child}").exists()


def _child(parent: int) -> int:
    listed = Path(f"/proc/{parent}/task/{parent}/children")
    if not listed.is_file():
        pytest.skip("the system does not tell the children of a process")
    while not (text := listed.read_text()):
        time.sleep(0.05)
    return int(text.split()[0])


def test_a_benchmark_of_a_model_that_never_ends(endless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0.5")
    np.savez(endless / "s.npz", **{"0.0": np.ones((1, 8), np.float32)})
    request = Load(
        model=str(endless / "m.onnx"),
        size_bytes=1000,
        provider="cpu",
        threads=1,
        spin="stop",
        samples=str(endless / "s.npz"),
        names=("x",),
    )
    worker = WorkerProcess("endless", request, endless / "log")
    with pytest.raises(ModelError, match=r"variant 'endless', model .*m\.onnx: running it does not end"):
        worker.load()
    worker.close()


@pytest.mark.parametrize(
    ("code", "number"),
    [
        ("watch.divide(['it'])\nsys.exit(7)", 7),
        ("watch.divide(['it'])\nwith watch.native('w', 0): os.kill(os.getpid(), signal.SIGTERM)", 143),
        ("watch.divide(['it'])\nos.kill(os.getpid(), signal.SIGKILL)", 137),
    ],
)
def test_the_parent_ends_as_the_child_does(code: str, number: int) -> None:
    assert script(code).returncode == number


def test_crashes() -> None:
    inside = script("watch.divide(['it'])\nwith watch.native('computing', 0): os.kill(os.getpid(), signal.SIGSEGV)")
    assert (inside.returncode, inside.stderr) == (3, "error: compress it: computing crashed (SIGSEGV)\n")
    outside = script("watch.divide(['it'])\nos.kill(os.getpid(), signal.SIGABRT)")
    assert (outside.returncode, outside.stderr) == (5, "error: compress it: a library crashed (SIGABRT)\n")


def test_a_library_that_crashes_when_it_is_interrupted_was_interrupted() -> None:
    """Extensions do, while they are imported."""
    ended = script(
        """
        watch.divide(['it'])
        signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGSEGV))
        time.sleep(0.5)
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(20)
        """
    )
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGTERM, "interrupted; finished steps are kept\n")


def test_what_native_code_says_is_kept_for_the_one_line_of_a_crash() -> None:
    spoken = "os.write(2, b'a warning\\nAssertion failed\\n')\nprint('ours', file=sys.stderr)\n"
    calm = script(f"watch.divide(['it'])\n{spoken}")
    assert (calm.returncode, calm.stderr) == (0, "ours\n")
    crashed = script(f"watch.divide(['it'])\n{spoken}os.kill(os.getpid(), signal.SIGABRT)")
    assert crashed.stderr == "ours\nerror: compress it: a library crashed (SIGABRT): Assertion failed\n"
    shown = script(f"watch.divide(['it', '-v'])\n{spoken}")
    assert shown.stderr == "a warning\nAssertion failed\nours\n"


def test_memory() -> None:
    ended = script("""
        watch._free_bytes = lambda: 1e8
        watch.divide(['it'])
        with watch.native('filling it', 0):
            held = bytearray(os.urandom(1 << 20)) * 300
            time.sleep(60)
        """)
    assert ended.returncode == 3
    assert ended.stderr == "error: compress it: filling it takes more than the 0.1 GB that are free\n"


def test_memory_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"""
        del os.environ[{VARIABLE!r}]
        watch.BASE_BYTES, watch.GROWTH = 1e8, 100
        watch.divide(['it'])
        with watch.native('filling it', 0, watch.allowed_bytes({{}})):
            time.sleep(0.5)
            held = bytearray(os.urandom(1 << 20)) * 300
            time.sleep(1)
        """
    enough, short = (script(code.format(nbytes)) for nbytes in (3e6, 1e6))
    assert (enough.returncode, enough.stderr) == (0, "")
    assert short.returncode == 3 and short.stderr.count("\n") == 1
    assert short.stderr.startswith("error: compress it: filling it takes more than 0.2 GB, for a model and inputs")
    monkeypatch.setenv(VARIABLE, "600")
    assert watch.allowed_bytes(1) == np.inf


def test_nothing_is_divided_when_it_is_switched_off() -> None:
    assert script("before = os.getpid()\nwatch.divide([])\nsys.exit(os.getpid() != before)", seconds=0).returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of a killed process")
def test_a_killed_parent_leaves_no_child(tmp_path: Path) -> None:
    work = f"open('{tmp_path}/pid', 'w').write(str(os.getpid())); time.sleep(600)"
    code = f"from onnxpress import watch; import os, time; watch.divide(['it']); {work}"
    process = subprocess.Popen([sys.executable, "-c", code], env=environment(600))
    child = _child(process.pid)
    while not (tmp_path / "pid").is_file():
        time.sleep(0.05)
    process.kill()
    process.wait()
    for _ in range(100):
        if not Path(f"/proc/{child}").exists():
            return
        time.sleep(0.05)
    pytest.fail("the child lives on")


@pytest.mark.parametrize(
    ("clock", "computed", "passed"),
    [(10.1, 10.1, True), (9.9, 40.0, False), (14.9, 9.9, False), (14.9, 10.1, True), (15.1, 0.0, True)],
)
def test_computed_time_counts_and_the_clock_only_of_one_that_waits(
    monkeypatch: pytest.MonkeyPatch, clock: float, computed: float, *, passed: bool
) -> None:
    now = {"clock": 1000.0, "computed": 50.0}
    monkeypatch.setattr(watch, "_computed_s", lambda _: now["computed"])
    monkeypatch.setattr(watch.time, "monotonic", lambda: now["clock"])
    limit = Limit(1, 10)
    now = {"clock": 1000.0 + clock, "computed": 50.0 + computed}
    assert limit.passed() is passed
    assert str(limit).startswith(f"does not end (stopped after {clock:.0f} s)")


def test_the_board() -> None:
    board = Board()
    slots = [board.enter(f"call {number} {'ü' * 600}", number, 2 * number) for number in range(watch.SLOTS)]
    assert board.enter("one too many", 1, 1) is None
    assert [call[1:3] for call in board.calls()] == [(number, 2 * number) for number in range(watch.SLOTS)]
    assert all(text.startswith("call ") and len(text) < watch.SLOT_BYTES for *_, text in board.calls())
    for slot in (*slots, None):
        board.leave(slot)
    assert board.calls() == []


def test_what_a_call_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert allowed_s(0) == watch.BASE_S and allowed_s(4 * watch.BYTES_PER_S) == watch.BASE_S + 4
    monkeypatch.setenv(VARIABLE, "60")
    assert allowed_s(0) == 60
    monkeypatch.setenv(VARIABLE, "many")
    assert allowed_s(0) == watch.BASE_S
