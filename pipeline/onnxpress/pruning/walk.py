"""Running a model piece by piece, so that its first half need not run again for each layer of the second."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from onnxpress import graph
from onnxpress.evaluation.fidelity import MASK
from onnxpress.graph import Array
from onnxpress.pruning.spool import Spool
from onnxpress.running import over
from onnxpress.session import SessionOptions
from onnxpress_calibration.dataset import Dataset

BATCH = 8
SLEEPING = SessionOptions(spin="off")
"""Spinning threads take the cores from the sums in between, and from the other model."""


class Walk:
    """A model on its way through data, with the values that the nodes ahead will read in files, batch by batch.

    A weight may change as long as its node lies ahead. Memory holds one batch; the folder takes what all samples need
    at one place of the model.
    """

    def __init__(self, model: ir.Model, data: Dataset, folder: Path) -> None:
        self._model = model
        self._nodes = list(model.graph)
        self._last_use = {value: at for at, node in enumerate(self._nodes) for value in _read(node)}
        self._at = 0
        self._folder = folder
        self._alive = {value: Spool(folder) for value in graph.inputs(model) if value in self._last_use}
        self.masks: list[Array | None] = []
        """Of each batch, [samples, positions], 0 at padding; None where nothing is."""
        for batch in data.batches(graph.input_specs(model), BATCH):
            for value, spool in self._alive.items():
                spool.append(batch[str(value.name)])
            self.masks.append(batch.get(MASK))

    def to(self, position: int) -> None:
        """Run the nodes before this position."""
        nodes = self._nodes[self._at : position]
        if not nodes:
            return
        given = [value for value in self._alive if any(value in _read(node) for node in nodes)]
        last = nodes[-1].outputs[0]
        made = [
            value
            for node in nodes
            for value in node.outputs
            if value is last or self._last_use.get(value, -1) >= position
        ]
        found = {value: Spool(self._folder) for value in made}
        readers = {str(value.name): self.values(value) for value in given}
        batches = ({name: next(reader) for name, reader in readers.items()} for _ in self.masks)
        for _, (outputs,) in over([self._piece(given, made)], batches, SLEEPING):
            for value, spool in found.items():
                spool.append(outputs[str(value.name)])
        alive = {value: spool for value, spool in self._alive.items() if self._last_use.get(value, -1) >= position}
        self._alive, self._at = alive | found, position

    def values(self, value: ir.Value) -> Iterator[Array]:
        """Yield a value batch by batch: one that a node ahead reads, or the first output of the last node that ran."""
        return (array for (array,) in self._alive[value])

    def _piece(self, given: list[ir.Value], made: list[ir.Value]) -> ir.Model:
        body = ir.convenience.extract(self._model.graph, given, made)
        for value, inner in zip(given, body.inputs, strict=True):
            inner.type = ir.TensorType(ir.DataType.from_numpy(self._alive[value].dtypes[0]))
        body.opset_imports.update(self._model.opset_imports)
        return ir.Model(body, ir_version=self._model.ir_version, functions=list(self._model.functions.values()))


def _read(node: ir.Node) -> set[ir.Value]:
    """Return what a node reads, the nodes inside its subgraphs too."""
    inner = [each for body in graph.subgraphs(node) for each in body.all_nodes()]
    return {value for each in (node, *inner) for value in each.inputs if value is not None}
