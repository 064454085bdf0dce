"""``python -m tests.fuzz --count N --seed S``: damaged inputs for every command; ends with 1 for a fault.

Input number i of a kind depends on the seed, the kind and i alone: ``--kind K --only i`` makes it again.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import math
import multiprocessing
import os
import pkgutil
import shlex
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.fuzz import corpus, running
from tests.fuzz.inputs import KINDS, TORCH, Case


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one input did."""

    kind: str
    number: int
    code: int
    seconds: float
    peak_bytes: int
    faults: tuple[str, ...]
    folder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What all inputs share."""

    seed: int
    corpus: Path
    scratch: Path
    failures: Path
    limit_s: float


def main() -> int:
    """Run the inputs that are asked for and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=300, help="inputs in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", choices=KINDS, help="again for more; default all")
    parser.add_argument("--only", type=int, help="one input by its number")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this time, with what was done")
    parser.add_argument("--limit", type=float, default=running.TIME_LIMIT_S, help="seconds of CPU time for one input")
    parser.add_argument("--failures", type=Path, default=Path(tempfile.gettempdir()) / "fuzz-failures")
    chosen = parser.parse_args()
    kinds = chosen.kind or list(KINDS)
    load(torch=any(kind in TORCH for kind in kinds))
    for name in [name for name in os.environ if name.startswith(("GITHUB_", "ONNXPRESS_", "XDG_"))]:
        del os.environ[name]
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))  # no TemporaryDirectory: the end of a fork would remove it
    try:
        found = fuzz(chosen, kinds, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    show(found, chosen.seed)
    return int(any(one.faults for one in found))


def fuzz(chosen: argparse.Namespace, kinds: list[str], scratch: Path) -> list[Found]:
    """Run the inputs and print each fault as it is found."""
    home = scratch / "corpus"
    home.mkdir()
    plan = Plan(
        seed=chosen.seed,
        corpus=corpus.make(home, torch=any(kind in TORCH for kind in kinds)),
        scratch=scratch,
        failures=chosen.failures,
        limit_s=chosen.limit,
    )
    numbers = range(chosen.count) if chosen.only is None else [chosen.only]
    tasks = [(plan, kinds[0] if chosen.only is not None else kinds[number % len(kinds)], number) for number in numbers]
    found, begun = [], time.monotonic()
    for one in results(tasks, chosen.jobs):
        found.append(one)
        for fault in one.faults:
            print(f"{one.kind} {one.number}: {fault}", flush=True)
        if time.monotonic() - begun > 60 * chosen.minutes:
            break
    return found


def load(*, torch: bool) -> None:
    """Import everything that commands import, so that a fork has it."""
    import onnxpress

    warnings.simplefilter("ignore")
    names = [module.name for module in pkgutil.walk_packages(onnxpress.__path__, "onnxpress.")]
    for name in names:
        if ".distillation" not in name and not name.endswith("__main__"):
            importlib.import_module(name)
    for name in ("onnxruntime", "jinja2", "PIL.Image", "rich.console", *(["torch", "torch.export"] if torch else [])):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else each fork's first collection copies all of this


def results(tasks: list[tuple[Plan, str, int]], jobs: int) -> Iterator[Found]:
    """Yield what each input did."""
    if jobs == 1:
        yield from map(one, tasks)
        return
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap_unordered(one, tasks)


def one(task: tuple[Plan, str, int]) -> Found:
    """Make an input, run its command and judge how it ended."""
    plan, kind, number = task
    home = Path(tempfile.mkdtemp(dir=plan.scratch))
    for part in ("work", "tmp", "home"):
        (home / part).mkdir()
    random = Random(f"{plan.seed} {kind} {number}")  # noqa: S311 - inputs, no secrets
    words = KINDS[kind](Case(random=random, corpus=plan.corpus, work=home / "work"))
    before = running.state(home / "work")
    ended = running.run(words, home, limit_s=plan.limit_s)
    faults = tuple(running.faults(ended, words, before, home))
    folder = ""
    if faults:
        kept = plan.failures / f"{kind}-{plan.seed}-{number}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(home, kept, symlinks=True)
        again = f"python -m tests.fuzz --seed {plan.seed} --kind {kind} --only {number}"
        text = (
            f"# {again}\n# {json.dumps(faults)}\ncd {shlex.quote(str(kept / 'work'))}\ncompress {shlex.join(words)}\n"
        )
        (kept / "cmd.sh").write_text(text, errors="surrogateescape")
        folder = str(kept)
    shutil.rmtree(home, ignore_errors=True)
    return Found(
        kind=kind,
        number=number,
        code=ended.code,
        seconds=ended.seconds,
        peak_bytes=ended.peak_bytes,
        faults=faults,
        folder=folder,
    )


def show(found: list[Found], seed: int) -> None:
    """Print totals by kind, and one input for each sort of fault."""
    print(f"{'kind':<15} inputs  faulty  exit codes                         worst s  worst MiB")
    for kind in dict.fromkeys(one.kind for one in found):
        own = [one for one in found if one.kind == kind]
        codes = ", ".join(f"{code}: {count}" for code, count in sorted(Counter(one.code for one in own).items()))
        print(
            f"{kind:<15} {len(own):>6}  {sum(bool(one.faults) for one in own):>6}  {codes:<34} "
            f"{max(one.seconds for one in own):>7.2f}  {max(one.peak_bytes for one in own) >> 20:>9}"
        )
    sorts: dict[str, list[Found]] = defaultdict(list)
    for one in found:
        for fault in one.faults:
            sorts[running.signature(fault)].append(one)
    for sort, those in sorted(sorts.items(), key=lambda pair: -len(pair[1])):
        first = those[0]
        again = f"python -m tests.fuzz --seed {seed} --kind {first.kind} --only {first.number}"
        print(f"{len(those):>5} × {sort}\n        {again}   {first.folder}")
    print(f"{len(found)} inputs, {sum(bool(one.faults) for one in found)} faulty")


if __name__ == "__main__":
    sys.exit(main())
