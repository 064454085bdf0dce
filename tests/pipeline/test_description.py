from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import zstandard

from onnxpress import artifact, description


def saved(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """A model that adds constants of many shapes to nothing: what counts are its weights."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
    nodes, weights = [], []
    for name, array in arrays.items():
        tensor = ir.tensor(array, name=name)
        weights.append(ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=tensor.shape))
        nodes.append(ir.node("Identity", [weights[-1]]))
        nodes[-1].outputs[0].name = f"{name}_copy"
    graph = ir.Graph([x], [nodes[0].outputs[0]], nodes=nodes, initializers=weights, opset_imports={"": 21}, name="g")
    return artifact.save(ir.Model(graph, ir_version=10), path).path


def test_weights_with_their_zeros_and_the_rest_in_one_entry(tmp_path: Path) -> None:
    arrays = {f"w{i}": np.ones(10 + i, np.float32) for i in range(description.LISTED_WEIGHTS + 5)}
    arrays["sparse"] = np.array([0, 0, 0, 1] * 1000, np.int8)
    facts = description.file_facts(saved(tmp_path / "m.onnx", arrays))
    first, *_, rest = facts["weights"]
    assert first == {"name": "sparse", "dtype": "int8", "bytes": 4000, "zeros_pct": 75.0}
    assert rest["name"] == "6 smaller tensors"
    assert sum(weight["bytes"] for weight in facts["weights"]) == sum(array.nbytes for array in arrays.values())
    assert facts["bytes_by_dtype"] == {"float": 4 * sum(10 + i for i in range(125)), "int8": 4000}
    assert facts["operators"] == {"Identity": 126}
    assert facts["parameters"] == sum(array.size for array in arrays.values())
    assert "kernels" not in facts


def test_compressed_bytes_are_those_of_zstandard_and_the_same_every_time(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", {"w": np.zeros(3_000_000, np.float32)})
    facts = [description.file_facts(path)["compressed_bytes"] for _ in range(2)]
    expected = len(zstandard.ZstdCompressor(level=3).compress(path.read_bytes()))
    assert facts == [pytest.approx(expected, abs=64)] * 2  # frames of a stream have another header
    assert facts[0] < path.stat().st_size / 100
