"""The distill step: from a student's graph, a teacher and unlabelled samples to an `Edit`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import onnx_ir as ir
from torch import nn

from onnxpress import graph
from onnxpress.artifact import Edit
from onnxpress.distillation.interpreter import FLOATS, Interpreter
from onnxpress.distillation.lesson import Lesson, train
from onnxpress.distillation.options import DistillOptions
from onnxpress.distillation.packed import pack, unpack
from onnxpress.distillation.weights import QuantizedWeight, write
from onnxpress.errors import ModelError, UsageError
from onnxpress_calibration.dataset import Dataset, InputSpec

MATCHED = 16
"""Inner tensors that are compared at most, spread over the depth of the network."""
PRUNED = 0.4
"""An 8-bit weight with a larger share of zeros was pruned, and keeps them; a float one keeps every zero."""
SPREAD_SAMPLES = 64


def distill(
    model: ir.Model,
    teacher: ir.Model,
    options: DistillOptions,
    data: Dataset,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    advance: Callable[[int], object] = lambda per_mille: None,  # noqa: ARG005
) -> Edit:
    """Train the weights of a model until it answers like another one.

    Args:
        model: The student, a prepared model: pruned, quantized (QDQ or weight-only) or plain float. It is not changed.
        teacher: A prepared model with the same inputs and outputs.
        options: How to train.
        data: Samples; labels only where ``options.labels`` asks for them.
        checkpoint: File to keep the state of the training in; whoever publishes the result removes it.
        resume: Continue from that file, if it is of the same models, data and options.
        advance: Called with the per mille done.

    Returns:
        The student with new weights in the same graph: shapes and zeros of pruned weights stay, quantized weights stay
        integers. Facts: ``updates``, ``best_update``, ``loss_before``, ``loss_after`` (held out),
        ``trained`` (number of weights), ``features`` matched, and ``history``.

    Raises:
        UsageError: the models do not fit each other, or an option does not fit them.
        DataError: the data does not fit.
        ModelError: an operator cannot be trained through; the message names it.
    """
    student_graph = model.clone()
    packed = unpack(student_graph)
    specs = graph.input_specs(student_graph)
    _check_pair(student_graph, teacher)
    features = _matched(student_graph, teacher) if options.features else []
    student = Interpreter(student_graph, watch=features)
    if not any(True for _ in student.parameters()):
        raise ModelError("distill: the student has no weights that can be trained.")
    _keep_zeros(student)
    pairs = list(zip(_outputs(student_graph), _outputs(teacher), strict=True))
    lesson = Lesson(
        teacher=teacher,
        outputs={mine.name or "": theirs.name or "" for mine, theirs in pairs},
        probabilities=frozenset(mine.name or "" for mine, _ in pairs if _is_softmax(mine)),
        features=features,
    )
    facts = train(student, lesson, specs, options, data, checkpoint=checkpoint, resume=resume, advance=advance)
    write(student_graph, student.weights, student.quantized)
    pack(student_graph, packed)
    changed = (*student.weights, *(stored.name for stored in student.quantized))
    return Edit(model=student_graph, changed=changed, facts=facts)


def _check_pair(student: ir.Model, teacher: ir.Model) -> None:
    """Check that both models take the same inputs and give the same outputs."""
    mine, theirs = graph.input_specs(student), graph.input_specs(teacher)
    for name, spec in theirs.items():
        if name not in mine or mine[name].dtype != spec.dtype or not _fit(mine[name].shape, spec.shape):
            raise UsageError(
                f"teacher: its input {name!r} is {_shown(spec)}, the student has {_inputs(mine)}. Distillation needs "
                "models with equal inputs."
            )
    ours, other = _outputs(student), _outputs(teacher)
    if not ours:
        raise UsageError("distill: the student has no float output to train.")
    if len(ours) != len(other):
        raise UsageError(
            f"teacher: has {len(other)} float outputs, the student {len(ours)}. Distillation needs equal outputs."
        )
    for value, wanted in zip(ours, other, strict=True):
        dims, goal = graph.shape(value), graph.shape(wanted)
        if dims is not None and goal is not None and not _fit(dims, goal):
            raise UsageError(
                f"teacher: output {wanted.name!r} is {_dims(goal)}, the student's {value.name!r} {_dims(dims)}. "
                "Distillation needs models with equal outputs."
            )


def _outputs(model: ir.Model) -> list[ir.Value]:
    return [value for value in model.graph.outputs if value.dtype in FLOATS]


def _is_softmax(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "Softmax"


def _fit(shape: tuple[int | None, ...], other: tuple[int | None, ...]) -> bool:
    return len(shape) == len(other) and all(
        a is None or b is None or a == b for a, b in zip(shape[1:], other[1:], strict=True)
    )


def _dims(shape: tuple[int | None, ...]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)


def _shown(spec: InputSpec) -> str:
    return f"{spec.dtype} {_dims(spec.shape)}"


def _inputs(specs: Mapping[str, InputSpec]) -> str:
    return ", ".join(f"{name!r} {_shown(spec)}" for name, spec in specs.items())


def _matched(student: ir.Model, teacher: ir.Model) -> list[str]:
    """Return inner tensors that both models have: outputs of activations and sums with the same name and shape."""
    theirs = {value.name: graph.shape(value) for node in teacher.graph for value in node.outputs}
    names = [
        value.name
        for node in student.graph
        if node.op_type in ("Relu", "Add", "LayerNormalization", "Clip", "Sigmoid", "Gelu")
        for value in node.outputs
        if value.name
        and not value.is_graph_output()
        and value.dtype in FLOATS
        and (dims := graph.shape(value)) is not None
        and dims == theirs.get(value.name)
        and len(dims) > 1
        and None not in dims[-1:]
    ]
    step = max(1, -(-len(names) // MATCHED))
    return names[step - 1 :: step]


def _keep_zeros(student: Interpreter) -> None:
    """Let no gradient reach the zeros of pruned weights: with Adam what has no gradient does not move."""
    for weight in student.weights.values():
        if weight.ndim > 1 and not bool(weight.detach().all()):
            _hold(weight)
    for stored in student.quantized:
        if isinstance(stored, QuantizedWeight):
            zeros = 1 - stored.latent.detach().count_nonzero().item() / stored.latent.numel()
            if stored.high >= 100 and zeros > PRUNED:
                _hold(stored.latent)


def _hold(weight: nn.Parameter) -> None:
    mask = (weight.detach() != 0).to(weight.dtype)
    weight.register_hook(lambda gradient: gradient * mask.to(gradient.device))  # type: ignore[no-untyped-call]
