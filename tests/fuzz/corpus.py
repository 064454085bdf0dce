"""The valid inputs that are damaged: small models and data, and everything that the commands make of them."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
from PIL import Image
from tests.fuzz.running import run

CONV = (
    "g (float[N,3,8,8] x) => (float[N,5] y) { a = Conv <pads=[1,1,1,1]> (x, w1, b1) "
    "n = BatchNormalization(a, s, t, m, v) r = Relu(n) p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (r) "
    "c = Conv (p, w2, b2) d = Relu(c) "
    "g = GlobalAveragePool(d) f = Flatten(g) y = Gemm <transB=1> (f, w3, b3) }",
    {
        "w1": (8, 3, 3, 3),
        "b1": (8,),
        "s": (8,),
        "t": (8,),
        "m": (8,),
        "v": (8,),
        "w2": (8, 8, 3, 3),
        "b2": (8,),
        "w3": (5, 8),
        "b3": (5,),
    },
)
MLP = (
    "g (float[N,8] x) => (float[N,5] y) { h = MatMul(x, w1) a = Add(h, b1) r = Relu(a) y = Gemm(r, w2, b2) }",
    {"w1": (8, 32), "b1": (32,), "w2": (32, 5), "b2": (5,)},
)
BRANCH = (
    "g (float[N,8] x) => (float[N,5] y) { h = MatMul(x, w1) s = ReduceSum <keepdims=0> (h) z = Less(s, b) "
    "y = If (z) <then_branch = t () => (float[N,5] u) { u = Neg(h) }, else_branch = e () => (float[N,5] o) "
    "{ o = Mul(h, h) }> }",
    {"w1": (8, 5), "b": ()},
)
POLICY = """
    schema: onnxpress.policy/1
    baseline: {metrics: baseline.json}
    rules:
      size.total_bytes: [error, {max: 25 MiB, max_ratio: 0.9x}]
      accuracy.top1: [error, {max_drop: 20pp, min_samples: 10}]
      fidelity.agreement: [warn, {min: 10%}]
      latency.p50: [warn, {max: 80 ms, max_regression: 500%, inconclusive: warn}]
      cost.usd_per_million: [warn, {max: 1.20 USD, instance: gcp/c3-standard-4/us-central1}]
      graph.forbidden_ops: [error, {any: [Loop, "com.microsoft.Q*"]}]
      provenance.lineage_complete: warn
    matrix:
      - {when: {arch: arm64}, rules: {latency.p50: [error, {max: 15 ms}]}}
    waivers:
      - {rule: latency.p50, reason: because, owner: platform, expires: 2027-01-31, max: 900 ms}
    settings: {missing: warn, inconclusive: warn, unfit_host: warn, max_waiver_days: 0, min_pairs: 2}
"""
PRICES = """
    schema: onnxpress.prices/1
    currency: USD
    as_of: 2026-11-01
    source: somebody
    instances:
      - {provider: gcp, type: c3-standard-4, region: us-central1, arch: x86_64, vcpus: 4, memory_gib: 16,
         price_per_hour: "0.2016"}
      - {provider: aws, type: c7g.large, region: us-east-1, arch: arm64, vcpus: 2, memory_gib: 4.0, isa: [dotprod],
         price_per_hour: "0.0725", spot_per_hour: "0.03", as_of: 2026-10-01}
"""
SETTINGS = """
    pue: 1.2
    utilisation: 60%
    storage_usd_per_gb_month: "0.02"
    one_off: {int8: 2.5h@0.20+400}
    grid: {g_co2e_per_kwh: 220.5, region: here, year: 2025, source: somebody}
"""
RECIPE = """
    schema: onnxpress.recipe/1
    model: {source: conv.onnx}
    data: {calibration: conv.npz, evaluation: conv.npz, metric: top1}
    variants:
      int8: [{quantize: {mode: static, calibrator: minmax, samples: 8}}]
      pruned-fp16: [{prune: {method: l2, granularity: channel, amount: 25%}}, {quantize: {mode: fp16}}]
    bench: {providers: [cpu], scenarios: [single], budget: 1s}
    cost: {instances: [gcp/c3-standard-4/us-central1], inferences_per_month: 1M, utilisation: 0.5}
    gate: first.yaml
"""
FIRST = """
    schema: onnxpress.policy/1
    rules: {size.total_bytes: [error, {max: 25 MiB}], accuracy.top1: [warn, {max_drop: 90pp}]}
"""
PREPROCESSING = """
    input: x
    size: [8, 8]
    resize: 9
    color: RGB
    scale: 255
    mean: [0.485, 0.456, 0.406]
    std: [0.229, 0.224, 0.225]
    layout: NCHW
    labels: labels.csv
"""
FACTORY = """
    import torch

    def model():
        return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 5))
"""


def model(body: str, weights: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """Parse a graph and give it seeded weights."""
    made = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {body}')
    random = np.random.default_rng(0)
    for name, shape in weights.items():
        array = np.abs(random.normal(size=shape, scale=0.5)).astype(np.float32) if len(shape) < 2 else None
        array = random.normal(size=shape, scale=0.5).astype(np.float32) if array is None else array
        made.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return made


def make(home: Path, *, torch: bool) -> Path:
    """Fill ``home/work`` with valid inputs, and return it.

    Args:
        home: An empty folder.
        torch: Add what only PyTorch makes and reads.

    Raises:
        RuntimeError: a command that must work does not.

    """
    work = home / "work"
    for part in ("work", "tmp", "home"):
        (home / part).mkdir()
    _models(work)
    _data(work)
    again = "".join(line for line in RECIPE.splitlines(keepends=True) if line.strip()[:5] not in ("bench", "cost:"))
    texts = {"policy": POLICY, "prices": PRICES, "settings": SETTINGS, "recipe": RECIPE, "again": again, "first": FIRST}
    for name, text in texts.items():
        (work / f"{name}.yaml").write_text(textwrap.dedent(text).lstrip())
    (work / "attack.json").write_text("{}")
    if torch:
        _torch(work)
    for words in (
        ["run", "recipe.yaml", "-o", "run"],
        ["baseline", "write", "run", "-o", "baseline.json"],
        ["profile", "conv.onnx", "--data", "conv.npz", "-o", "conv.profile"],
        ["quantize", "mlp.onnx", "--mode", "dynamic", "-o", "int8.onnx", "--json", "step.json"],
    ):
        ended = run(words, home, limit_s=120)
        if ended.code:
            raise RuntimeError(f"compress {' '.join(words)}: exit code {ended.code}: {ended.out}{ended.err}")
    (work / "report.json").write_bytes((work / "run" / "report.json").read_bytes())
    (work / "bench.json").write_bytes((work / "run" / "bench.json").read_bytes())
    return work


def _models(work: Path) -> None:
    for name, (body, weights) in {"conv": CONV, "mlp": MLP, "branch": BRANCH}.items():
        onnx.save(model(body, weights), work / f"{name}.onnx")
    onnx.save(
        model(*MLP),
        work / "external.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location="external.data",
        size_threshold=0,
    )


def _data(work: Path) -> None:
    random = np.random.default_rng(1)
    labels = random.integers(0, 5, 16)
    pixels = random.normal(size=(16, 3, 8, 8)).astype(np.float32)
    np.savez(work / "conv.npz", x=pixels, y=labels)
    np.savez_compressed(work / "packed.npz", x=pixels, y=labels)
    np.savez(work / "mlp.npz", x=random.normal(size=(16, 8)).astype(np.float32), y=labels)
    np.save(work / "bare.npy", pixels)
    images = work / "images"
    images.mkdir()
    for index in range(4):
        picture = Image.fromarray(random.integers(0, 255, (12, 10, 3), np.uint8))
        picture.save(images / f"{index}.{'png' if index % 2 else 'jpg'}")
    rows = "".join(f"{index}.{'png' if index % 2 else 'jpg'},{index}\n" for index in range(4))
    (images / "labels.csv").write_text(f"file,label\n{rows}")
    (images / "preprocessing.yaml").write_text(textwrap.dedent(PREPROCESSING).lstrip())


def _torch(work: Path) -> None:
    import safetensors.torch
    import torch

    (work / "factory.py").write_text(textwrap.dedent(FACTORY).lstrip())
    torch.manual_seed(0)
    made = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 5))
    torch.save(made.state_dict(), work / "weights.pt")
    safetensors.torch.save_file(made.state_dict(), work / "weights.safetensors")
    torch.export.save(torch.export.export(made, (torch.zeros(2, 8),)), work / "program.pt2")


def packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the bytes of an ``.npz`` file."""
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=True, **arrays)
    return stream.getvalue()
