import pytest

from onnxpress.bench.messages import (
    Block,
    Dissect,
    Dissected,
    Failed,
    Load,
    Loaded,
    Measure,
    Message,
    Serve,
    Served,
    WarmedUp,
    WarmUp,
    decode,
    encode,
)


@pytest.mark.parametrize(
    "message",
    [
        Load(
            model="a b.onnx",
            size_bytes=1000,
            provider="cpu",
            threads=2,
            spin="stop",
            samples="s.npz",
            names=("x", "größe\n"),
        ),
        Load(
            model="m",
            size_bytes=1000,
            provider="cuda",
            threads=2,
            sessions=2,
            spin="on",
            samples="s",
            names=(),
            config={"a": "1"},
        ),
        Loaded(
            onnxruntime="1.31.1",
            import_ms=1.5,
            session_ms=2.5,
            first_run_ms=3.5,
            second_run_ms=1.5,
            session_hwm_bytes=3,
            vm_hwm_bytes=None,
            device_bytes=None,
        ),
        WarmUp(batch=8),
        WarmedUp(run_ms=0.25, stable=None),
        Measure(batch=8, runs=30, copies=True),
        Serve(rate_per_s=12.5, requests=100, seed=3),
        Served(latencies_ns=(1, 2), services_ns=(1, 1)),
        Dissect(runs=3),
        Dissected(file="profile.json"),
        Block(durations_ns=(1, 2), speed_ns=3, ticks=4, stolen_ticks=5, throttled=6, preempted=7),
        Failed(kind="ModelError", message="two\nlines"),
    ],
)
def test_messages_are_one_line_and_arrive_as_they_were_sent(message: Message) -> None:
    line = encode(message)
    assert line.endswith("\n") and len(line.splitlines()) == 1
    assert decode(line) == message
