"""Embedding tables to int8: look up integers, then dequantize only what was looked up.

``Gather(table, ids)`` becomes ``DequantizeLinear(Gather(int8 table, ids))`` with one scale per column, so that a run
touches the rows it needs; dequantizing before the lookup would convert the whole table each time.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxpress import graph
from onnxpress.quantization.options import QuantizeOptions
from onnxpress.quantization.params import quantize_weight

MIN_ELEMENTS = 1024
"""Smaller tables are position indices and the like: nothing to win."""


def tables(model: ir.Model, options: QuantizeOptions) -> list[ir.Node]:
    """Return the Gather nodes of the main graph that look rows up in a float table worth quantizing."""
    found = []
    for node in model.graph:
        if node.op_type != "Gather" or node.domain not in graph.ONNX_DOMAINS or not options.selects(node.name or ""):
            continue
        tensor = graph.constant_tensor(node.inputs[0])
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or len(tensor.shape) != 2 or tensor.size < MIN_ELEMENTS:
            continue
        if graph.attribute_int(node, "axis", 0) == 0:
            found.append(node)
    return found


def quantize(model: ir.Model, options: QuantizeOptions) -> list[str]:
    """Quantize the tables, in place; return the names of the changed nodes."""
    main, changed = model.graph, []
    for node in tables(model, options):
        table = node.inputs[0]
        assert table is not None and table.const_value is not None  # noqa: S101 - `tables` chose it for that
        integers = main.initializers.get(f"{table.name}_int8")
        if integers is None:
            array, scale = quantize_weight(table.const_value.numpy(), None if options.per_tensor else 1)
            integers = graph.add_initializer(main, f"{table.name}_int8", array)
            graph.add_initializer(main, f"{table.name}_int8_scale", scale)
        scales = main.initializers[f"{table.name}_int8_scale"]
        node.replace_input_with(0, integers)
        looked_up = node.outputs[0]
        attributes = {} if options.per_tensor else {"axis": -1}
        dequantize = ir.node("DequantizeLinear", [looked_up, scales], attributes, name=f"{node.name}_dequantize")
        result = dequantize.outputs[0]
        result.shape, result.type = looked_up.shape, ir.TensorType(ir.DataType.FLOAT)
        ir.convenience.replace_all_uses_with(looked_up, result, replace_graph_outputs=True)
        dequantize.replace_input_with(0, looked_up)
        result.name, looked_up.name = looked_up.name, f"{looked_up.name}_int8"
        looked_up.type = ir.TensorType(ir.DataType.INT8)  # a new type: clones of a model share theirs
        main.insert_after(node, dequantize)
        changed.append(node.name or "")
    return changed
