"""Several batches at a time: what comes out is what one after the other would give."""

import threading
from collections.abc import Iterator

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from onnxpress import host, running
from onnxpress.errors import ModelError
from onnxpress.session import Arrays, SessionOptions


def doubling(shape: str = "N,3") -> ir.Model:
    return ir.from_proto(
        onnx.parser.parse_model(
            f'<ir_version: 10, opset_import: ["": 21]> g (float[{shape}] x) => (float[{shape}] z) {{ z = Add(x, x) }}'
        )
    )


def numbered(count: int) -> Iterator[Arrays]:
    for number in range(count):
        yield {"x": np.full((1, 3), number, np.float32), "y": np.array([number])}


@pytest.mark.parametrize("threads", [1, 3, 16])
def test_batches_come_in_order_with_the_outputs_of_every_model(threads: int) -> None:
    found = list(running.over([doubling(), doubling()], numbered(40), SessionOptions(threads=threads)))
    assert [int(batch["y"][0]) for batch, _ in found] == list(range(40))  # labels are kept, and given to no model
    for number, (_, outputs) in enumerate(found):
        assert [output["z"].tolist() for output in outputs] == [[[2.0 * number] * 3]] * 2


def test_threads_are_shared_among_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "usable_threads", lambda: 10)
    assert running.shared()[0] == 4 and running.shared()[1].threads == 2
    assert running.shared(SessionOptions(threads=2))[0] == 2
    assert running.shared(SessionOptions(provider="cuda")) == (1, SessionOptions(provider="cuda", threads=10))


def test_several_run_at_a_time_and_few_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run waits for another one: alone none would end."""
    together, read = threading.Barrier(2, timeout=30), []

    def meet(_session: object, feeds: Arrays) -> Arrays:
        together.wait()
        return feeds

    def batches() -> Iterator[Arrays]:
        for batch in numbered(20):
            read.append(batch)
            yield batch

    monkeypatch.setattr(running, "run", meet)
    for position, _ in enumerate(running.over([doubling()], batches(), SessionOptions(threads=2))):
        assert len(read) <= position + 3


def test_a_failure_is_raised_and_nothing_hangs() -> None:
    with pytest.raises(ModelError, match="model fails on the input"):
        list(running.over([doubling("2,3")], numbered(40)))
