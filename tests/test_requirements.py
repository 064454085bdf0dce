"""The list for CPU-only installations: every dependency, at the version that everything else is tested with."""

import re
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def pins(name: str) -> dict[str, str]:
    lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
    return {canonical(line.split("==")[0]): line.split("==")[1] for line in lines}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def dependencies(name: str, seen: set[str]) -> set[str]:
    """Return everything that a distribution needs, without extras."""
    environment = {key: str(value) for key, value in default_environment().items()} | {"extra": ""}
    for text in metadata.requires(name) or ():
        needed = Requirement(text)
        if (needed.marker is None or needed.marker.evaluate(environment)) and canonical(needed.name) not in seen:
            seen.add(canonical(needed.name))
            dependencies(needed.name, seen)
    return seen


def test_the_list_holds_all_dependencies_with_plain_onnxruntime_at_the_tested_versions() -> None:
    cpu, tested = pins("requirements-cpu.txt"), pins("constraints.txt")
    tested["onnxruntime"] = tested.pop("onnxruntime-gpu")
    assert cpu == {name: tested[name] for name in cpu}
    needed = {name.replace("onnxruntime-gpu", "onnxruntime") for name in dependencies("onnxpress", set())}
    assert needed == set(cpu)
