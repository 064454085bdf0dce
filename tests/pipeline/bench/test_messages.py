import pytest

from onnxpress.bench.messages import Block, Failed, Load, Loaded, Measure, Message, WarmedUp, WarmUp, decode, encode


@pytest.mark.parametrize(
    "message",
    [
        Load(model="a b.onnx", provider="cpu", threads=2, spin="stop", samples="s.npz", names=("x", "größe\n")),
        Loaded(onnxruntime="1.31.1", import_ms=1.5, session_ms=2.5, first_run_ms=3.5, vm_hwm_bytes=None),
        WarmUp(batch=8),
        WarmedUp(run_ms=0.25, stable=None),
        Measure(batch=8, runs=30),
        Block(durations_ns=(1, 2), speed_ns=3, ticks=4, stolen_ticks=5, throttled=6, preempted=7),
        Failed(kind="ModelError", message="two\nlines"),
    ],
)
def test_messages_are_one_line_and_arrive_as_they_were_sent(message: Message) -> None:
    line = encode(message)
    assert line.endswith("\n") and len(line.splitlines()) == 1
    assert decode(line) == message
