"""Where the time of a run goes: onnxruntime's own profile, read into a table of operators.

Profiling slows a run down, so this comes from a process of its own, and is read as shares, not as a latency.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CPU = "CPUExecutionProvider"
KERNEL = "_kernel_time"
SHOWN_NODES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTime:
    """One node of the graph that really runs, and its mean time in one run."""

    name: str
    op: str
    provider: str
    mean_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What onnxruntime's profile tells of a model."""

    nodes: tuple[NodeTime, ...]
    """In the order of the graph."""
    arena_peak_bytes: int | None
    """The most that the allocator had given out at any node of a run; the same in every run of the same input."""

    def fallback_nodes(self, provider: str) -> int:
        """Return how many nodes run on the CPU although ``provider`` (onnxruntime's name) is another device's."""
        return 0 if provider == CPU else self.assignment().get(CPU, 0)

    def assignment(self) -> dict[str, int]:
        """Return how many nodes each execution provider runs."""
        found: dict[str, int] = {}
        for node in self.nodes:
            found[node.provider] = found.get(node.provider, 0) + 1
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the tables of operators and of the slowest nodes, as in onnxpress.bench/1."""
        total_ms = sum(node.mean_ms for node in self.nodes) or 1.0
        groups: dict[tuple[str, str], list[NodeTime]] = {}
        for node in self.nodes:
            groups.setdefault((node.op, node.provider), []).append(node)
        operators = [
            {
                "op": op,
                "provider": provider,
                "nodes": len(nodes),
                "ms": sum(node.mean_ms for node in nodes),
                "share_pct": 100 * sum(node.mean_ms for node in nodes) / total_ms,
            }
            for (op, provider), nodes in groups.items()
        ]
        slowest = sorted(self.nodes, key=lambda node: -node.mean_ms)[:SHOWN_NODES]
        return {
            "operators": sorted(operators, key=lambda row: (-row["ms"], row["op"])),
            "slowest_nodes": [
                {
                    "name": node.name,
                    "op": node.op,
                    "provider": node.provider,
                    "ms": node.mean_ms,
                    "share_pct": 100 * node.mean_ms / total_ms,
                }
                for node in slowest
            ],
            "assignment": self.assignment(),
        }


def read(path: Path, *, skipped_runs: int) -> Profile:
    """Read a profile that onnxruntime wrote.

    Args:
        path: The file, in the format of Chrome's tracing tool.
        skipped_runs: Runs at the start that do not count: the first ones make room in the arena.

    """
    return parse(json.loads(path.read_text(encoding="utf-8")), skipped_runs=skipped_runs)


def parse(events: Sequence[Mapping[str, Any]], *, skipped_runs: int) -> Profile:
    """Read the events of a profile; see `read`."""
    runs = sorted(float(event["ts"]) for event in events if event["name"] == "model_run")
    counted = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(KERNEL)]
    if len(runs) > skipped_runs:
        counted = [event for event in counted if float(event["ts"]) >= runs[skipped_runs]]
    times: dict[tuple[str, str, str], float] = {}
    for event in counted:
        facts = event["args"]
        key = (event["name"].removesuffix(KERNEL), facts["op_name"], facts["provider"])
        times[key] = times.get(key, 0.0) + float(event["dur"]) / 1e3
    peaks = [int(event["args"]["mem_in_use_peak"]) for event in counted if "mem_in_use_peak" in event["args"]]
    count = max(1, len(runs) - skipped_runs)
    return Profile(
        nodes=tuple(
            NodeTime(name=name, op=op, provider=provider, mean_ms=time_ms / count)
            for (name, op, provider), time_ms in times.items()
        ),
        arena_peak_bytes=max(peaks, default=None),
    )
