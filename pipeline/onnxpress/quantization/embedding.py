"""Embedding tables to int8: look up integers, then dequantize only what was looked up.

``Gather(table, ids)`` becomes ``DequantizeLinear(Gather(int8 table, ids))`` with one scale per column, so that a run
touches the rows it needs; dequantizing before the lookup would convert the whole table each time.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from onnxpress import graph
from onnxpress.quantization.params import WeightGrid
from onnxpress.quantization.weights import Weights


def quantize(
    main: ir.Graph, nodes: Iterable[ir.Node], weights: Weights, *, per_tensor: bool, bits: int = 8
) -> list[str]:
    """Quantize the tables that Gather nodes look up, in place; return the names of the nodes.

    Args:
        main: The main graph, which holds the tables.
        nodes: What `placement.tables` found, in `main` or in the bodies inside it.
        weights: Integers made before.
        per_tensor: One scale instead of one per column.
        bits: Use only so many bits of the int8.
    """
    changed = []
    for node in nodes:
        table = node.inputs[0]
        if table is None or table.const_value is None or node.graph is None:
            continue
        array, scale = weights.quantize(table.const_value, None if per_tensor else 1, WeightGrid(bits=bits))
        node.replace_input_with(0, graph.add_initializer(main, f"{table.name}_int8", array))
        scales = graph.add_initializer(main, f"{table.name}_int8_scale", scale)
        looked_up = node.outputs[0]
        attributes = {} if per_tensor else {"axis": -1}
        dequantize = ir.node("DequantizeLinear", [looked_up, scales], attributes, name=f"{node.name}_dequantize")
        result = dequantize.outputs[0]
        result.shape, result.type = looked_up.shape, ir.TensorType(ir.DataType.FLOAT)
        ir.convenience.replace_all_uses_with(looked_up, result, replace_graph_outputs=True)
        dequantize.replace_input_with(0, looked_up)
        result.name, looked_up.name = looked_up.name, f"{looked_up.name}_int8"
        looked_up.type = ir.TensorType(ir.DataType.INT8)  # a new type: clones of a model share theirs
        node.graph.insert_after(node, dequantize)
        changed.append(node.name or "")
    return changed
