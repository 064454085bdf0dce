"""One function a kind of input: it damages something in a case's folder and returns the command that meets it."""

from __future__ import annotations

import io
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import onnx
from tests.fuzz import mutation
from tests.fuzz.corpus import packed

INSTANCE = "gcp/c3-standard-4/us-central1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One input to be made."""

    random: Random
    corpus: Path
    work: Path

    def take(self, *names: str) -> None:
        """Copy files or folders of the corpus."""
        for name in names:
            source = self.corpus / name
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, self.work / name)

    def damage(self, name: str, how: Callable[[Random, bytes], bytes], *, source: str | None = None) -> None:
        """Write a damaged copy of a file."""
        content = how(self.random, (self.corpus / (source or name)).read_bytes())
        (self.work / name).write_bytes(content)

    def either(self, *choices: str) -> list[str]:
        """Return the words of one of these commands."""
        return self.random.choice(choices).split()


def model_bytes(case: Case) -> list[str]:
    """Flip, cut and repeat bytes of a model."""
    source = case.random.choice(["conv.onnx", "mlp.onnx", "branch.onnx", "int8.onnx"])
    case.damage("bad.onnx", mutation.some_bytes, source=source)
    return _on_model(case)


def model_fields(case: Case) -> list[str]:
    """Change fields of a model: names, types, shapes, attributes, edges."""
    source = case.random.choice(["conv.onnx", "mlp.onnx", "branch.onnx", "int8.onnx", "int8.onnx"])
    proto = onnx.load(case.corpus / source)
    mutation.some_fields(case.random, proto)
    (case.work / "bad.onnx").write_bytes(proto.SerializeToString())
    return _on_model(case)


def external_data(case: Case) -> list[str]:
    """Damage where a model's external data is said to be, or the data."""
    proto = onnx.load(case.corpus / "external.onnx", load_external_data=False)
    tensor = case.random.choice(list(proto.graph.initializer))
    if case.random.random() < 0.3:
        case.damage("external.data", mutation.some_bytes)
    elif case.random.random() < 0.9:
        case.take("external.data")
    for _ in range(case.random.randint(1, 2)):
        match case.random.randrange(5):
            case 0:
                mutation.some_fields(case.random, case.random.choice(list(tensor.external_data)))
            case 1:
                case.random.choice(list(tensor.external_data)).value = case.random.choice(
                    [*mutation.NAMES, "-1", "9" * 30, "0", "1e3", "/dev/zero", "bad.onnx", ".", "link"]
                )
            case 2:
                tensor.external_data.add(key=case.random.choice(["location", "offset", "length"]), value="7")
            case 3:
                mutation.some_fields(case.random, tensor)
            case _:
                (case.work / "link").unlink(missing_ok=True)
                (case.work / "link").symlink_to(
                    case.random.choice(["/etc/passwd", "link", "external.data", "/dev/zero"])
                )
                tensor.external_data[0].value = "link"
    (case.work / "bad.onnx").write_bytes(proto.SerializeToString())
    return _on_model(case)


def _on_model(case: Case) -> list[str]:
    case.take("conv.npz", "mlp.npz", "mlp.onnx")
    return case.either(
        "inspect bad.onnx",
        "inspect bad.onnx --json -",
        "export bad.onnx -o out.onnx",
        "prune bad.onnx -o out.onnx --amount 30%",
        "prune bad.onnx -o out.onnx --amount 30% --granularity weight",
        "quantize bad.onnx -o out.onnx --mode dynamic",
        "quantize bad.onnx -o out.onnx --mode fp16",
        "quantize bad.onnx -o out.onnx --mode weight-only",
        "quantize bad.onnx -o out.onnx --mode static --calibration mlp.npz",
        "quantize bad.onnx -o out.onnx --mode static --calibration conv.npz",
        "profile bad.onnx --data mlp.npz -o out.profile",
        "evaluate mlp.onnx bad.onnx --data mlp.npz --metric top1",
        "evaluate bad.onnx --data conv.npz",
    )


def npz(case: Case) -> list[str]:
    """Damage an archive of arrays: its bytes, its members, their headers, their values."""
    name = case.random.choice(["conv.npz", "packed.npz"])
    match case.random.randrange(5):
        case 0:
            case.damage("bad.npz", mutation.some_bytes, source=name)
        case 1:
            content = (case.corpus / "bare.npy").read_bytes()
            (case.work / "bad.npz").write_bytes(case.random.choice([content, b"", b"PK\x05\x06" + b"\x00" * 18]))
        case 2:
            (case.work / "bad.npz").write_bytes(packed(_arrays(case.random)))
        case _:
            _members(case, name)
    case.take("conv.onnx")
    return case.either(
        "profile conv.onnx --data bad.npz -o out.profile",
        "evaluate conv.onnx --data bad.npz --metric top1",
        "evaluate conv.onnx --data bad.npz",
        "quantize conv.onnx -o out.onnx --mode static --calibration bad.npz",
        "quantize conv.onnx -o out.onnx --mode static --calibration bad.npz --samples 2",
        "prune conv.onnx -o out.onnx --amount 25% --calibration bad.npz",
    )


def _arrays(random: Random) -> dict[str, np.ndarray]:
    values = random.choice(
        [
            np.zeros((0, 3, 8, 8), np.float32),
            np.full((4, 3, 8, 8), random.choice([np.nan, np.inf, 1e38]), np.float32),
            np.zeros((4, 3, 8), np.float32),
            np.zeros(
                (4, 3, 8, 8), random.choice([np.float64, np.int64, np.complex64, np.bool_, "U3", "datetime64[s]"])
            ),
            np.array([None] * 4, object),
            np.zeros((), np.float32),
            np.zeros((4, 3, 8, 8), [("a", np.float32)]),
            np.zeros((4, 3, 8, 8), np.float32),
        ]
    )
    labels = random.choice(
        [
            np.arange(4),
            np.arange(5),
            np.array([-1, 9, 2**40, 3]),
            np.array(["a"] * 4),
            np.zeros((4, 5)),
            np.full(4, np.nan),
        ]
    )
    name = random.choice(["x", "x", "x", *mutation.NAMES[4:10]]).replace("\x00", "")
    return {name: values, random.choice(["y", "y", "labels"]): labels}


def _members(case: Case, source: str) -> None:
    """Rewrite an archive with one member's header or name changed."""
    with zipfile.ZipFile(case.corpus / source) as given:
        members = {name: given.read(name) for name in given.namelist()}
    target = case.random.choice(list(members))
    content = members[target]
    length = struct.unpack("<H", content[8:10])[0]
    header = content[10 : 10 + length].decode("latin-1")
    header = case.random.choice(
        [
            lambda: header.replace(
                "16", case.random.choice(["1" * 15, "-1", "0", "16.5", "9" * 5000, "17", "True", "'a'"])
            ),
            lambda: header.replace(
                "<f4", case.random.choice(["|O", ">f4", "<f8", "|V99999999", "<U9999999", "x", "<c8"])
            ),
            lambda: header.replace("False", case.random.choice(["True", "None", "0", "__import__('os')"])),
            lambda: "{" * 3000,
            lambda: mutation.some_bytes(case.random, header.encode()).decode("latin-1"),
            lambda: header.replace("shape", "forme"),
        ]
    )()
    raw = header.encode("latin-1")
    if len(raw) < 65_000:
        members[target] = content[:8] + struct.pack("<H", len(raw)) + raw + content[10 + length :]
    if case.random.random() < 0.3:
        members[case.random.choice(["../x.npy", "/x.npy", f"a\n{mutation.MARK}.npy", "x", "y.npy", "z.txt"])] = content
    with zipfile.ZipFile(
        case.work / "bad.npz", "w", case.random.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    ) as made:
        for name, data in members.items():
            made.writestr(name, data)


def profile(case: Case) -> list[str]:
    """Damage activation statistics."""
    if case.random.random() < 0.5:
        case.damage("bad.profile", mutation.some_bytes, source="conv.profile")
    else:
        with np.load(case.corpus / "conv.profile") as given:
            arrays = {name: given[name] for name in given.files}
        if case.random.random() < 0.5:
            header = mutation.some_json(case.random, str(arrays["header"]).encode()).decode("utf-8", "replace")
            arrays["header"] = np.array(header.replace("\x00", ""))
        else:
            name = case.random.choice(list(arrays))
            array = arrays[name]
            arrays[name] = case.random.choice(
                [
                    lambda: array[:-1] if array.ndim else np.array([array] * 2),
                    lambda: np.zeros((0, *array.shape[1:]), array.dtype),
                    lambda: np.full(array.shape, -1, np.int64),
                    lambda: np.full(array.shape, 2**62, np.int64),
                    lambda: np.full(array.shape, np.nan),
                    lambda: np.array(["a", "b"]),
                    lambda: np.array(None, object),
                ]
            )()
            if case.random.random() < 0.2:
                del arrays[case.random.choice(list(arrays))]
        (case.work / "bad.profile").write_bytes(packed(arrays))
    case.take("conv.onnx", "conv.profile", "conv.npz")
    return case.either(
        "inspect bad.profile",
        "inspect bad.profile --json -",
        "profile --merge conv.profile bad.profile -o out.profile",
        "quantize conv.onnx -o out.onnx --mode static --profile bad.profile",
    )


def report_json(case: Case) -> list[str]:
    """Damage a report."""
    case.damage("report.json", mutation.some_json)
    case.take("policy.yaml", "baseline.json")
    return case.either(
        "report report.json -o out.html",
        "report report.json -o out.md",
        "report report.json -o out.json",
        "report report.json",
        "gate report.json --policy policy.yaml --out out",
        "gate report.json --policy policy.yaml --annotations github",
        "gate init report.json -o out.yaml",
        "baseline write report.json -o out.json",
        "baseline diff report.json --file baseline.json",
    )


def bench_json(case: Case) -> list[str]:
    """Damage a benchmark's result."""
    case.damage("bench.json", mutation.some_json)
    return case.either(
        f"cost bench.json --instance {INSTANCE}",
        f"cost bench.json --instance {INSTANCE} --inferences-per-month 1M --json -",
        "cost bench.json --instance gcp/*/us-central1 --latency p99=5ms",
    )


def baseline_json(case: Case) -> list[str]:
    """Damage a stored baseline."""
    case.damage("baseline.json", mutation.some_json)
    case.take("report.json", "policy.yaml")
    return case.either(
        "baseline show baseline.json",
        "baseline diff report.json --file baseline.json",
        "baseline write report.json -o out.json",
        "gate report.json --policy policy.yaml --out out",
    )


def recipe_yaml(case: Case) -> list[str]:
    """Damage a recipe."""
    case.take("conv.onnx", "conv.npz", "first.yaml")
    planned = case.random.random() < 0.7  # a benchmark takes as long as its budget, which is no fault
    case.damage("recipe.yaml", mutation.some_yaml, source="recipe.yaml" if planned else "again.yaml")
    return ["run", "recipe.yaml", "-o", "out", *(["--dry-run"] if planned else [])]


def policy_yaml(case: Case) -> list[str]:
    """Damage a policy."""
    case.damage("policy.yaml", mutation.some_yaml)
    case.take("report.json", "baseline.json")
    return case.either(
        "gate report.json --policy policy.yaml --out out", "gate report.json --policy policy.yaml --annotations github"
    )


def prices_yaml(case: Case) -> list[str]:
    """Damage a price table."""
    case.damage("prices.yaml", mutation.some_yaml)
    case.take("bench.json")
    return case.either(
        f"cost bench.json --prices prices.yaml --instance {INSTANCE}",
        "prices validate prices.yaml",
        "prices list --prices prices.yaml",
        f"prices show {INSTANCE} --prices prices.yaml",
    )


def settings_yaml(case: Case) -> list[str]:
    """Damage the settings of a cost report."""
    case.damage("settings.yaml", mutation.some_yaml)
    case.take("bench.json")
    return f"cost bench.json --settings settings.yaml --instance {INSTANCE}".split()


def images(case: Case) -> list[str]:
    """Damage a folder of images: what says how they are read, the labels, the pictures."""
    case.take("images", "conv.onnx")
    folder = case.work / "images"
    match case.random.randrange(4):
        case 0 | 1:
            case.damage("images/preprocessing.yaml", mutation.some_yaml)
        case 2:
            (folder / "labels.csv").write_bytes(
                mutation.some_bytes(case.random, (folder / "labels.csv").read_bytes())
                if case.random.random() < 0.5
                else case.random.choice(
                    [b"", b"file,label\n", b"file,label\n0.jpg,1e5\n", b"file,label\n../x,1\n", b"a\x00b\n"]
                )
            )
        case _:
            name = case.random.choice(["0.jpg", "1.png"])
            case.damage(f"images/{name}", mutation.some_bytes)
    return case.either(
        "evaluate conv.onnx --data images --metric top1",
        "profile conv.onnx --data images -o out.profile",
        "evaluate conv.onnx --data images",
    )


def run_folder(case: Case) -> list[str]:
    """Damage a file of a finished run."""
    case.take("run", "policy.yaml", "baseline.json", "again.yaml", "conv.onnx", "conv.npz", "first.yaml")
    files = sorted(path for path in (case.work / "run").rglob("*") if path.is_file())
    target = case.random.choice(files)
    if case.random.random() < 0.15:
        target.unlink()
    elif target.suffix == ".json":
        target.write_bytes(mutation.some_json(case.random, target.read_bytes()))
    else:
        target.write_bytes(mutation.some_bytes(case.random, target.read_bytes()))
    return case.either(
        "report run",
        "report run -o out.html",
        "gate run --policy policy.yaml --json out.json",
        "baseline write run -o out.json",
        "run again.yaml -o run",
    )


def catalogue(case: Case) -> list[str]:
    """Damage a provider's list of prices."""
    kind, content = case.random.choice(CATALOGUES)
    how = mutation.some_json if kind == "azure" else mutation.some_yaml if kind == "gcosts" else mutation.some_bytes
    (case.work / "catalogue").write_bytes(how(case.random, content.encode()))
    return f"prices import catalogue --format {kind} -o out.yaml".split()


CATALOGUES = (
    (
        "gcosts",
        "about: {generated: 2026-10-01}\ncompute:\n  instance:\n    c3-standard-4:\n      cpu: 4\n      ram: 16\n"
        "      cost: {us-central1: {hour: 0.2, hour_spot: 0.05}}\n",
    ),
    (
        "azure",
        '{"Items": [{"armSkuName": "Standard_D4s_v5", "armRegionName": "eastus", "retailPrice": 0.192, "currencyCode": '
        '"USD", "productName": "Virtual Machines Dsv5 Series", "skuName": "D4s v5", "unitOfMeasure": "1 Hour", '
        '"effectiveStartDate": "2021-11-01T00:00:00Z", "meterName": "D4s v5", "type": "Consumption"}]}',
    ),
    ("table", "provider,type,region,price_per_hour,as_of\nown,box,here,0.5,2026-01-01\n"),
    (
        "skypilot",
        "InstanceType,vCPUs,MemoryGiB,AcceleratorName,AcceleratorCount,Price,SpotPrice,Region\n"
        "m5.large,2.0,8.0,,,0.096,0.04,us-east-1\n",
    ),
    ("aws", '"FormatVersion","v1.0"\n"Publication Date","2026-10-01"\n"SKU","TermType","Unit"\n"A","OnDemand","Hrs"\n'),
)


def words(case: Case) -> list[str]:
    """Write a command line that nobody meant."""
    case.take("mlp.onnx", "mlp.npz", "report.json", "bench.json", "policy.yaml", "baseline.json", "prices.yaml")
    pool = [path.name for path in case.work.iterdir()]
    pool += [
        *mutation.NAMES,
        "-",
        ".",
        "/dev/null",
        "/dev/zero",
        "out.onnx",
        "out.json",
        "zoo:nothing",
        "a:b",
        "no.py:f",
    ]
    pool += [
        "-1",
        "0",
        "1e9",
        "nan",
        "5%",
        "999%",
        "1s",
        "99h",
        "[",
        "(",
        "top1",
        "dynamic",
        "fp16",
        "error",
        "9" * 5000,
    ]
    line = case.random.choice(LINES).split()
    for _ in range(case.random.choice([1, 1, 2])):
        place = case.random.randrange(1, len(line) + 1)
        value = case.random.choice(pool).replace("\x00", "")
        match case.random.randrange(4):
            case 0:
                line.insert(place, value)
            case 1 if place < len(line):
                del line[place]
            case 2:
                line.insert(place, f"--{value}" if value else "--")
            case _ if place < len(line):
                line[place] = value
    return [
        "out.html" if flag in ("-o", "--output", "--json", "--html") else value
        for flag, value in zip(["", *line], line, strict=False)
    ]


LINES = (
    "inspect mlp.onnx",
    "export mlp.onnx -o out.onnx --opset 18",
    "prune mlp.onnx -o out.onnx --amount 30% --method l2 --granularity channel --round-to 4",
    "quantize mlp.onnx -o out.onnx --mode dynamic --bits 8 --exclude w1",
    "quantize mlp.onnx -o out.onnx --mode static --calibration mlp.npz --samples 4 --calibrator mse",
    "profile mlp.onnx --data mlp.npz -o out.profile",
    "evaluate mlp.onnx --data mlp.npz --metric top1",
    "cost bench.json --instance gcp/c3-standard-4/us-central1 --price c3-standard-4=0.19 --utilisation 50%",
    "gate report.json --policy policy.yaml --variant int8 --max-warnings 3",
    "gate init report.json -o out.yaml --headroom 25%",
    "baseline write report.json -o out.json",
    "baseline diff report.json --file baseline.json",
    "report report.json -o out.html",
    "prices validate prices.yaml --max-age 90d",
    "prices list --prices prices.yaml --provider gcp",
    "run policy.yaml -o out",
)


def torch_files(case: Case) -> list[str]:
    """Damage weights and exported programs, and the words that name them."""
    choice = case.random.choice(["weights.pt", "weights.safetensors", "program.pt2"])
    if choice == "weights.safetensors" and case.random.random() < 0.5:
        content = (case.corpus / choice).read_bytes()
        size = struct.unpack("<Q", content[:8])[0]
        header = mutation.some_json(case.random, content[8 : 8 + size])
        size = case.random.choice([len(header), len(header), 2**62, 0])
        (case.work / choice).write_bytes(struct.pack("<Q", size) + header + content[8 + len(header) :])
    elif choice == "program.pt2" and case.random.random() < 0.7:
        _archive(case, choice)
    else:
        case.damage(choice, mutation.some_bytes)
    case.take("factory.py")
    if choice == "program.pt2":
        return ["export", choice, "-o", "out.onnx"]
    return ["export", "factory.py:model", "--weights", choice, "--input", "x:float32:N,8", "-o", "out.onnx"]


def _archive(case: Case, name: str) -> None:
    with zipfile.ZipFile(case.corpus / name) as given:
        members = {member: given.read(member) for member in given.namelist()}
    target = case.random.choice(list(members))
    match case.random.randrange(4):
        case 0:
            del members[target]
        case 1:
            members[case.random.choice([f"{target}x", "../up", "data/x.pt", "data/sample_inputs/model.pt"])] = members[
                target
            ]
        case _ if target.endswith(".json"):
            members[target] = mutation.some_json(case.random, members[target])
        case _:
            members[target] = mutation.some_bytes(case.random, members[target])
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        for member, content in members.items():
            made.writestr(member, content)
    (case.work / name).write_bytes(stream.getvalue())


KINDS: dict[str, Callable[[Case], list[str]]] = {
    function.__name__: function
    for function in (
        *(model_bytes, model_fields, external_data, npz, profile, images, torch_files),
        *(report_json, bench_json, baseline_json, run_folder, catalogue),
        *(recipe_yaml, policy_yaml, prices_yaml, settings_yaml, words),
    )
}
"""By the word that ``--kind`` knows."""
TORCH = ("torch_files",)
"""Kinds that need PyTorch, which takes seconds to import."""
