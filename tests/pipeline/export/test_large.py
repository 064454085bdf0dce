"""A model of more than two gigabytes, whose weights are in a file of their own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

SIZE, LAYERS = 12000, 4  # 2.3 GB
BYTES = SIZE * SIZE * 4
CHILD = """
import json, resource, sys
from pathlib import Path
from onnxpress import artifact
from onnxpress.export.prepare import prepare

def peak_bytes():
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024

# Memory of its own, which unlike mapped files cannot be given back: two weights fit, three do not.
resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
edit = prepare(artifact.load(Path("large.onnx")), opset=21)
prepared = peak_bytes()
made = artifact.save(edit.model, Path("out.onnx"))
print(json.dumps({"prepare_bytes": prepared, "size_bytes": made.size_bytes, "facts": edit.facts}))
"""


@pytest.fixture
def large(tmp_path: Path) -> Path:
    if shutil.disk_usage(tmp_path).free < 4 * LAYERS * BYTES:
        pytest.skip("needs 10 GB of free disk")
    with (tmp_path / "large.data").open("wb") as stream:
        for layer in range(LAYERS):
            stream.seek(layer * BYTES)
            stream.write(np.full(8, layer + 1, np.float32).tobytes())
        stream.truncate(LAYERS * BYTES)  # the rest is a hole of zeros
    value = ir.val("x", ir.DataType.FLOAT, ["batch", SIZE])
    inputs, nodes, weights = [value], [], []
    for layer in range(LAYERS):
        tensor = ir.ExternalTensor(
            "large.data",
            layer * BYTES,
            BYTES,
            ir.DataType.FLOAT,
            shape=ir.Shape([SIZE, SIZE]),
            name=f"w{layer}",
            base_dir=tmp_path,
        )
        weight = ir.val(f"w{layer}", ir.DataType.FLOAT, [SIZE, SIZE], const_value=tensor)
        weights.append(weight)
        nodes.append(ir.node("Gemm", [value, weight]))
        value = nodes[-1].outputs[0]
        value.name, value.dtype = f"y{layer}", ir.DataType.FLOAT
    graph = ir.Graph(inputs, [value], nodes=nodes, initializers=weights, opset_imports={"": 17}, name="large")
    (tmp_path / "large.onnx").write_bytes(ir.to_proto(ir.Model(graph, ir_version=8)).SerializeToString())
    yield tmp_path
    for file in tmp_path.glob("*.data"):
        file.unlink()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_weights_are_never_all_in_memory(large: Path) -> None:
    code = f"LIMIT = {2 * BYTES}\n{CHILD}"
    done = subprocess.run([sys.executable, "-c", code], cwd=large, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["facts"] == {"nodes_before": 4, "nodes_after": 4, "opset_before": 17, "opset_after": 21}
    assert told["prepare_bytes"] < BYTES / 2, "not one of the weights was read"
    assert told["size_bytes"] > LAYERS * BYTES
