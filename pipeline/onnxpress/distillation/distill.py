"""The distill step: from a student's graph, a teacher and unlabelled samples to an `Edit`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor, nn

from onnxpress import artifact, graph
from onnxpress.artifact import Edit
from onnxpress.distillation import augment, processes
from onnxpress.distillation.interpreter import FLOATS, Interpreter
from onnxpress.distillation.loop import Progressed, Training
from onnxpress.distillation.objective import Objective, information, spread
from onnxpress.distillation.options import DistillOptions
from onnxpress.distillation.packed import pack, unpack
from onnxpress.distillation.samples import Samples, length
from onnxpress.distillation.weights import QuantizedWeight, write
from onnxpress.errors import DataError, ModelError, UsageError
from onnxpress.session import SessionOptions, open_session, run
from onnxpress_calibration.dataset import LABELS, Dataset, InputSpec

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
        checkpoint: File to keep the state of the training in, until it is done.
        resume: Continue from that file, if it is of the same models, data and options.
        advance: Called with the per mille done.

    Returns:
        The student with new weights in the same graph: shapes and zeros of pruned weights stay, quantized weights stay
        integers. Facts: ``updates``, ``best_update``, ``loss_before``, ``loss_after`` (held out),
        ``parameters`` trained, ``features`` matched, and ``history``.

    Raises:
        UsageError: the models do not fit each other, or an option does not fit them.
        DataError: the data does not fit.
        ModelError: an operator cannot be trained through; the message names it.
    """
    student_graph = model.clone()
    packed = unpack(student_graph)
    specs = graph.input_specs(student_graph)
    _check_pair(student_graph, teacher)
    rest, part = replace(data, limit=options.samples or data.limit).split(specs, options.held_out)
    held = Samples.read(part, specs) if options.held_out else Samples(groups=())
    if held.count and next(rest.samples(), None) is None:
        raise DataError(f"data {data.origin}: too few samples to hold some out. Give more, or --held-out 0.")
    training = Samples.read(rest, specs)
    if options.labels and not (training.labelled and held.labelled):
        raise DataError(f"data {data.origin}: has no labels `y`, which --labels {options.labels:g} needs.")
    features = _matched(student_graph, teacher) if options.features else []
    student = Interpreter(student_graph, watch=features)
    parameters = sum(weight.numel() for weight in student.parameters())
    if not parameters:
        raise ModelError("distill: the student has no weights that can be trained.")
    _keep_zeros(student)
    with processes.joined() as ours:
        taught = _teacher(teacher, features, ours.device)
        objective = _objective(student_graph, teacher, features, training, taught, options, ours.device)
        loop = Training(
            student.to(ours.device),
            taught,
            objective,
            training,
            held,
            augment.make(options.augment, specs, labelled=options.labels > 0),
            options,
            ours,
            piece=_fixed_batch(specs),
        )
        key = _key(student, teacher, options, data)
        done = loop.run(checkpoint=checkpoint, key=key, resume=resume, advance=advance)
    write(student_graph, student.weights, student.quantized)
    pack(student_graph, packed)
    return Edit(
        model=student_graph,
        changed=(*student.weights, *(stored.name for stored in student.quantized)),
        facts=_facts(done, parameters, len(features)),
    )


def _facts(done: Progressed, parameters: int, features: int) -> dict[str, object]:
    history = [
        {"update": step, "loss": None if loss != loss else loss, "held_out": None if held == float("inf") else held}
        for step, loss, held in done.history
    ]
    return {
        "updates": done.step,
        "best_update": done.best_step if done.best_weights else done.step,
        "loss_before": history[0]["held_out"],
        "loss_after": history[-1]["held_out"] if done.best == float("inf") else done.best,
        "parameters": parameters,
        "features": features,
        "history": history,
    }


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


def _teacher(
    model: ir.Model, features: list[str], device: torch.device
) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    """Return the teacher as a function: in PyTorch, or in onnxruntime where PyTorch does not know an operator."""
    try:
        module = Interpreter(model, watch=features).to(device).requires_grad_(requires_grad=False)
    except ModelError:
        if features:
            raise
        session = open_session(model, SessionOptions(spin="off"))

        def answer(feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
            made = run(session, {name: value.cpu().numpy() for name, value in feeds.items()})
            return {name: torch.from_numpy(value).to(device) for name, value in made.items()}

        return answer
    inputs = module.inputs

    def teach(feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            return dict(module({name: feeds[name] for name in inputs}))

    return teach


def _objective(
    student: ir.Model,
    teacher: ir.Model,
    features: list[str],
    samples: Samples,
    taught: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
    options: DistillOptions,
    device: torch.device,
) -> Objective:
    """Decide how each output is compared; the teacher's answers to a few samples say how large its tensors are."""
    answers = list(_answers(samples, taught, _fixed_batch(graph.input_specs(teacher)), device))
    found = {name: [answer[name] for answer in answers] for name in answers[0]}
    spreads = {name: spread(values) for name, values in found.items()}
    outputs, probabilities = {}, set()
    for value, wanted in zip(_outputs(student), _outputs(teacher), strict=True):
        name, other = value.name or "", wanted.name or ""
        producer = value.producer()
        if producer is not None and producer.op_type == "Softmax":
            probabilities.add(name)
        kind = options.loss
        if kind == "auto":
            kind = "kl" if found[other][0].ndim == 2 and found[other][0].shape[1] > 1 else "mse"
        outputs[name] = other, kind
        if kind == "kl":
            soft = name in probabilities
            spreads[other] = information(found[other], options.temperature, probabilities=soft)
    return Objective(
        outputs=outputs,
        probabilities=frozenset(probabilities),
        features=tuple(features),
        spreads=spreads,
        temperature=options.temperature,
        features_weight=options.features,
        labels_weight=options.labels,
    )


def _answers(
    samples: Samples,
    taught: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
    fixed: int | None,
    device: torch.device,
) -> Iterator[dict[str, Tensor]]:
    """Yield the teacher's answers to the first samples, `SPREAD_SAMPLES` or a few more."""
    seen = 0
    for group in samples.groups:
        size = fixed or min(length(group), SPREAD_SAMPLES - seen)
        for start in range(0, length(group) - size + 1, size):
            if seen >= SPREAD_SAMPLES:
                return
            feeds = {name: torch.from_numpy(value[start : start + size].copy()) for name, value in group.items()}
            yield taught({name: value.to(device) for name, value in feeds.items() if name != LABELS})
            seen += size


def _fixed_batch(specs: Mapping[str, InputSpec]) -> int | None:
    """Return the number of samples a model takes at once, where that is fixed."""
    sizes = {spec.shape[0] for spec in specs.values() if spec.shape and spec.shape[0] is not None}
    return next(iter(sizes)) if len(sizes) == 1 else None


def _key(student: Interpreter, teacher: ir.Model, options: DistillOptions, data: Dataset) -> str:
    """Say what a checkpoint is of: the first weights of both models, the options and the data."""
    digest = hashlib.sha256(json.dumps(options.model_dump(mode="json"), sort_keys=True).encode())
    digest.update(data.sha256.encode())
    for tensor in artifact.tensors(teacher):
        digest.update(tensor.tobytes())
    for name, value in student.state_dict().items():
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
