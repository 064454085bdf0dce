"""Kills commands at random moments, and looks at what is left: nothing lost, changed, half written or left over.

    python benchmarks/robustness/kills.py --count 200 --seed 0

Each trial starts a command (quantize, prune, distill, profile, run, bench) on a small reference model, sends it
SIGKILL, SIGTERM or SIGINT at a random moment of its usual time, and then checks that

* every input has the bytes it had, and what was there before is there, or is replaced by a whole new one (--force);
* an output is whole (a model loads in onnxruntime, JSON is JSON) or absent; finished steps of a run are still there;
* a signal that can be handled gives its exit code, with one line and no traceback;
* no process of it lives on, and after the next command no scratch folder is left, neither beside outputs nor in TMPDIR.

Linux. Exit code 1 when a check fails; what failed is printed with the seed of its trial.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import onnxruntime

COMMANDS = {
    "quantize static": "quantize in/net.onnx -o out/o.onnx --calibration in/data.npz --json out/o.json",
    "quantize dynamic": "quantize in/net.onnx -o out/o.onnx --mode dynamic --json out/o.json",
    "prune": "prune in/net.onnx -o out/o.onnx --amount 30% --repair --calibration in/data.npz --json out/o.json",
    "profile": "profile in/net.onnx -o out/o.profile --data in/data.npz --json out/o.json",
    "bench": "bench in/net.onnx in/teacher.onnx --budget 2s --json out/o.json",
    "distill": "distill in/net.onnx -o out/o.onnx --teacher in/teacher.onnx --data in/data.npz --epochs 20 "
    "--json out/o.json",
    "run": "run in/recipe.yaml -o out/run --json out/o.json",
}
RECIPE = """schema: onnxpress.recipe/1
model: {source: net.onnx}
data: {calibration: data.npz, evaluation: data.npz}
variants:
  int8: [{quantize: {mode: static}}]
  pruned: [{prune: {method: l2, granularity: channel, amount: 30%}}, {quantize: {mode: static}}]
"""
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TRACES = (".onnxpress-", "onnxpress-", "tmp", "torch")
"""How names begin that a killed command may have left."""
ENDS_S = 12.0


@dataclass(frozen=True)
class Place:
    """A folder for trials: inputs, outputs, and a TMPDIR of its own."""

    root: Path

    @property
    def outputs(self) -> Path:
        """Where the commands write."""
        return self.root / "out"

    def clear(self) -> None:
        """Remove all outputs."""
        shutil.rmtree(self.outputs)
        self.outputs.mkdir()

    @property
    def tmpdir(self) -> Path:
        """For temporary files of the commands alone."""
        return self.root / "tmp"

    def start(self, words: str) -> subprocess.Popen[str]:
        """Start a command in a session of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "onnxpress", *words.split()],
            cwd=self.root,
            env=os.environ | {"TMPDIR": str(self.tmpdir), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, words: str) -> float:
        """Run a command to its end; return its seconds."""
        start = time.monotonic()
        process = self.start(words)
        said = process.communicate()[1]
        if process.returncode not in (0, 1, 4):
            raise RuntimeError(f"compress {words}: exit code {process.returncode}: {said}")
        return time.monotonic() - start

    def inputs(self) -> dict[str, str]:
        """Return the hash of every input."""
        return {file.name: sha256(file.read_bytes()).hexdigest() for file in sorted((self.root / "in").iterdir())}

    def scratch(self) -> list[str]:
        """Return what was left behind."""
        found = [*self.tmpdir.iterdir(), *(path for path in self.outputs.rglob("*") if path.name.startswith(TRACES))]
        return sorted(str(path.relative_to(self.root)) for path in found)


def prepare(root: Path) -> Place:
    """Make the inputs."""
    for name in ("in", "out", "tmp"):
        (root / name).mkdir()
    place = Place(root)
    for name, source in (("net", "digits_cnn"), ("teacher", "digits_mlp")):
        place.run(f"export zoo:{source} -o in/{name}.onnx -q")
    import numpy as np

    session = onnxruntime.InferenceSession(str(root / "in" / "net.onnx"), providers=["CPUExecutionProvider"])
    (value,) = session.get_inputs()
    samples = np.random.default_rng(0).normal(size=(64, *value.shape[1:])).astype(np.float32)
    np.savez(root / "in" / "data.npz", **{value.name: samples})
    (root / "in" / "recipe.yaml").write_text(RECIPE)
    return place


def trial(place: Place, name: str, usual_s: float, draw: random.Random) -> Iterator[str]:
    """Kill a command once; yield what is wrong then."""
    words, sent, forced = COMMANDS[name], draw.choice(SIGNALS), draw.random() < 0.5
    if name != "run" or draw.random() < 0.3:
        place.clear()
    for file in place.outputs.glob("o.*"):
        file.unlink()
    old = [word for word in words.split() if word.startswith("out/o.")] if forced else []
    for file in old:
        (place.root / file).write_text("old")
    before, finished = place.inputs(), steps(place)
    process = place.start(f"{words} {'--force' if forced else ''}{' --resume' if name == 'distill' else ''}")
    time.sleep(draw.uniform(0, usual_s))
    early = process.poll() is not None
    process.send_signal(sent)
    since = time.monotonic()
    try:
        said = process.communicate(timeout=60)[1]
    except subprocess.TimeoutExpired:
        yield "does not end"
        process.kill()
        said = process.communicate()[1]
    if time.monotonic() - since > ENDS_S:
        yield f"took {time.monotonic() - since:.0f} s to end"
    if not early and sent != signal.SIGKILL:
        if process.returncode not in (0, 1, 4, 128 + sent, -sent):
            yield f"exit code {process.returncode} after {sent.name}: {said}"
        if "Traceback" in said and "onnxpress/cli" in said:  # else Python itself was still starting
            yield f"traceback: {said}"
    yield from (f"process {each} lives on" for each in alive(process.pid))
    if sent != signal.SIGKILL and place.scratch() and process.returncode != -sent:  # -sent: before Python could listen
        yield f"{sent.name} left {place.scratch()}"
    if place.inputs() != before:
        yield "an input changed"
    if not finished <= steps(place):
        yield f"lost {finished - steps(place)}"
    for file in ("o.onnx", "o.json", "o.profile"):
        yield from half(place.outputs / file, may_be_old=f"out/{file}" in old)
    place.run("inspect in/net.onnx -q")
    if place.scratch():
        yield f"the next command left {place.scratch()}"
    if name == "run" and draw.random() < 0.2:
        place.run(f"{words} --force")


def steps(place: Place) -> set[str]:
    """Return the finished steps of a run."""
    return {str(file) for file in place.outputs.glob("run/steps/*/step.json")}


def half(path: Path, *, may_be_old: bool) -> Iterator[str]:
    """Yield a fault when a file is neither absent, nor old, nor whole."""
    if not path.exists():
        if may_be_old:
            yield f"{path.name} was there before, and is gone"
        return
    if may_be_old and path.read_bytes() == b"old":
        return
    try:
        if path.suffix == ".onnx":
            onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        elif path.suffix == ".json":
            json.loads(path.read_text())
        else:
            from onnxpress_calibration.profile import Profile

            Profile.read(path)
    except Exception as error:
        yield f"{path.name} is not whole: {error}"


def alive(session: int) -> list[str]:
    """Return the processes of a session that live on, a moment later."""
    for _ in range(50):
        listed = subprocess.run(["ps", "-o", "pid=,stat=,args=", "--sid", str(session)], capture_output=True, text=True)
        living = [line.strip() for line in listed.stdout.splitlines() if line.split()[1][0] != "Z"]
        if not living:
            return []
        time.sleep(0.1)
    return living


def main() -> None:
    """Kill so many times, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--command", action="append", choices=COMMANDS, help="only this one; again for more")
    arguments = parser.parse_args()
    chosen = arguments.command or list(COMMANDS)
    faults, done = 0, Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        place = prepare(Path(folder))
        usual_s = {}
        for index in range(arguments.count):
            name = chosen[index % len(chosen)]
            if name not in usual_s:
                place.clear()
                usual_s[name] = place.run(COMMANDS[name])
            try:
                found = list(trial(place, name, usual_s[name], random.Random(f"{arguments.seed} {index}")))  # noqa: S311
            except RuntimeError as error:
                found = [str(error)]
            for fault in found:
                print(f"trial {index} ({name}, --seed {arguments.seed}): {fault}", flush=True)
            faults += len(found)
            done[name] += 1
    print(
        f"{sum(done.values())} kills ({', '.join(f'{name} {count}' for name, count in done.items())}): {faults} faults"
    )
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
