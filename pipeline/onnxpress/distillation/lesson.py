"""What every student needs, a graph or a PyTorch module: samples, a teacher to ask, an objective, and the loop."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor, nn

from onnxpress import artifact, graph
from onnxpress.distillation import augment, processes
from onnxpress.distillation.interpreter import Interpreter
from onnxpress.distillation.loop import Progressed, Teacher, Training
from onnxpress.distillation.objective import Objective, information, spread
from onnxpress.distillation.options import DistillOptions
from onnxpress.distillation.samples import Samples, length
from onnxpress.errors import DataError, ModelError
from onnxpress.session import SessionOptions, open_session, run
from onnxpress_calibration.dataset import LABELS, Dataset, InputSpec

SPREAD_SAMPLES = 64
SAME = 0.1
"""Two tensors are the same but for factors of their channels when they then differ by less of the variance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """Which tensors of a student are compared with which of its teacher."""

    teacher: ir.Model
    outputs: Mapping[str, str]
    """Student's output: teacher's output."""
    probabilities: frozenset[str] = frozenset()
    """Student's outputs that are probabilities already."""
    features: Sequence[str] = ()
    """Inner tensors that both have."""


def train(
    student: nn.Module,
    lesson: Lesson,
    specs: Mapping[str, InputSpec],
    options: DistillOptions,
    data: Dataset,
    *,
    checkpoint: Path | None,
    resume: bool,
    advance: Callable[[int], object],
) -> dict[str, object]:
    """Train a student in place.

    Args:
        student: Gives its tensors by name, for feeds by name.
        lesson: What it learns from whom.
        specs: The inputs of both models.
        options: How to train.
        data: Samples.
        checkpoint: File to keep the state of the training in; whoever publishes the result removes it.
        resume: Continue from that file, if it is of the same models, data and options.
        advance: Called with the per mille done.

    Returns:
        Facts: ``updates``, ``best_update``, ``loss_before``, ``loss_after`` (held out), ``trained`` (number of
        weights), ``features`` matched, and ``history``.

    Raises:
        DataError: the data does not fit.
        ModelError: the loss is not finite, or a model fails.
    """
    training, held = _samples(data, specs, options)
    with processes.joined() as ours:
        taught = _teacher(lesson, ours.device)
        objective = _objective(student.to(ours.device), lesson, training, taught, options, ours.device)
        loop = Training(
            student,
            taught,
            objective,
            training,
            held,
            augment.make(options.augment, specs, labelled=options.labels > 0),
            options,
            ours,
            piece=_fixed_batch(specs),
        )
        key = _key(student, lesson.teacher, options, data)
        done = loop.run(checkpoint=checkpoint, key=key, resume=resume, advance=advance)
    parameters = sum(weight.numel() for weight in student.parameters())
    return _facts(done, parameters, len(objective.features))


def _samples(data: Dataset, specs: Mapping[str, InputSpec], options: DistillOptions) -> tuple[Samples, Samples]:
    """Return (samples to train on, held-out samples)."""
    text = next((name for name, spec in specs.items() if spec.dtype == object), None)
    if text is not None:
        raise ModelError(
            f"model input {text!r}: holds strings, which PyTorch cannot train from. Distill the part of the model "
            "behind what turns them into numbers."
        )
    rest, part = replace(data, limit=options.samples or data.limit).split(specs, options.held_out)
    held = Samples.read(part, specs) if options.held_out else Samples(groups=())
    if held.count and next(rest.samples(), None) is None:
        raise DataError(f"data {data.origin}: too few samples to hold some out. Give more, or --held-out 0.")
    training = Samples.read(rest, specs)
    if options.labels and not (training.labelled and held.labelled):
        raise DataError(f"data {data.origin}: has no labels `y`, which --labels {options.labels:g} needs.")
    return training, held


def _teacher(lesson: Lesson, device: torch.device) -> Teacher:
    """Return the teacher as a function: in PyTorch, or in onnxruntime where PyTorch does not know an operator."""
    try:
        module = Interpreter(lesson.teacher, watch=lesson.features).to(device).requires_grad_(requires_grad=False)
    except ModelError:
        if lesson.features:
            raise
        session = open_session(lesson.teacher, SessionOptions(spin="off"))

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
    student: nn.Module,
    lesson: Lesson,
    samples: Samples,
    taught: Teacher,
    options: DistillOptions,
    device: torch.device,
) -> Objective:
    """Decide how each tensor is compared; the answers to a few samples say how large the teacher's tensors are."""
    asked = list(_asked(samples, _fixed_batch(graph.input_specs(lesson.teacher)), device))
    answers = [taught(feeds) for feeds in asked]
    with torch.no_grad():
        given = student.eval()(asked[0]) if lesson.features else {}
    found = {name: [answer[name] for answer in answers] for name in answers[0]}
    spreads = {name: spread(values) for name, values in found.items()}
    outputs: dict[str, tuple[str, str]] = {}
    for name, other in lesson.outputs.items():
        kind: str = options.loss
        if kind == "auto":
            kind = "kl" if found[other][0].ndim == 2 and found[other][0].shape[1] > 1 else "mse"
        outputs[name] = other, kind
        if kind == "kl":
            soft = name in lesson.probabilities
            spreads[other] = information(found[other], options.temperature, probabilities=soft)
    return Objective(
        outputs=outputs,
        probabilities=lesson.probabilities,
        features=tuple(name for name in lesson.features if not _rescaled(given[name], answers[0][name])),
        spreads=spreads,
        temperature=options.temperature,
        features_weight=options.features,
        labels_weight=options.labels,
    )


def _asked(samples: Samples, fixed: int | None, device: torch.device) -> Iterator[dict[str, Tensor]]:
    """Yield feeds of the first samples, `SPREAD_SAMPLES` or a few more."""
    seen = 0
    for group in samples.groups:
        size = fixed or min(length(group), SPREAD_SAMPLES - seen)
        for start in range(0, length(group) - size + 1, size):
            if seen >= SPREAD_SAMPLES:
                return
            feeds = {name: torch.from_numpy(value[start : start + size].copy()) for name, value in group.items()}
            yield {name: value.to(device) for name, value in feeds.items() if name != LABELS}
            seen += size


def _rescaled(mine: Tensor, wanted: Tensor) -> bool:
    """Tell whether a tensor is the teacher's but for a factor of each channel: equalization and smoothing move them."""
    channel = 1 if mine.ndim > 3 else mine.ndim - 1
    others = [axis for axis in range(mine.ndim) if axis != channel]
    factor = (mine * wanted).sum(others, keepdim=True) / mine.square().sum(others, keepdim=True).clamp_min(1e-12)
    plain, rest = ((each - wanted).square().mean() for each in (mine, factor * mine))
    return bool(rest < plain / 4 and rest < SAME * wanted.var(correction=0))


def _fixed_batch(specs: Mapping[str, InputSpec]) -> int | None:
    """Return the number of samples a model takes at once, where that is fixed."""
    sizes = {spec.shape[0] for spec in specs.values() if spec.shape and spec.shape[0] is not None}
    return next(iter(sizes)) if len(sizes) == 1 else None


def _facts(done: Progressed, parameters: int, features: int) -> dict[str, object]:
    history = [
        {"update": step, "loss": None if loss != loss else loss, "held_out": None if held == float("inf") else held}
        for step, loss, held in done.history
    ]
    return {
        "updates": done.step,
        "best_update": done.history[done.kept][0] if done.kept_weights else done.step,
        "loss_before": history[0]["held_out"],
        "loss_after": history[done.kept if done.kept_weights else -1]["held_out"],
        "trained": parameters,
        "features": features,
        "history": history,
    }


def _key(student: nn.Module, teacher: ir.Model, options: DistillOptions, data: Dataset) -> str:
    """Say what a checkpoint is of: the first weights of both models, the options and the data."""
    digest = hashlib.sha256(json.dumps(options.model_dump(mode="json"), sort_keys=True).encode())
    digest.update(data.sha256.encode())
    for tensor in artifact.tensors(teacher):
        digest.update(tensor.tobytes())
    for name, value in student.state_dict().items():
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
