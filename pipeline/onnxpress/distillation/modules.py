"""Distillation of a PyTorch model: a reference model or the user's own code, with the loss and the loop of graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import onnx_ir as ir
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from onnxpress import graph
from onnxpress.distillation.lesson import Lesson, train
from onnxpress.distillation.options import DistillOptions
from onnxpress.errors import ModelError, UsageError
from onnxpress.export import sources
from onnxpress.export.inputs import InputArgument
from onnxpress_calibration.dataset import Dataset


class Named(nn.Module):
    """A PyTorch model that takes its inputs by name and gives its outputs by name, as a graph does."""

    def __init__(self, module: nn.Module, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.module, self.inputs, self.outputs = module, inputs, outputs

    def forward(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run it.

        Raises:
            ModelError: it fails, or gives another number of outputs.
        """
        try:
            made = self.module(*(feeds[name] for name in self.inputs))
        except Exception as error:  # the user's code raises what it likes
            raise ModelError(f"student: fails on these samples ({' '.join(str(error).split())[:300]}).") from error
        given = list(made.values()) if isinstance(made, Mapping) else made
        tensors = list(given) if isinstance(given, (list, tuple)) else [given]
        if len(tensors) != len(self.outputs):
            raise UsageError(
                f"teacher: has {len(self.outputs)} outputs, the student {len(tensors)}. Distillation needs equal "
                "outputs."
            )
        return dict(zip(self.outputs, tensors, strict=True))


def distill_module(
    source: str,
    teacher: ir.Model,
    options: DistillOptions,
    data: Dataset,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    advance: Callable[[int], object] = lambda per_mille: None,  # noqa: ARG005
) -> tuple[nn.Module, dict[str, object]]:
    """Train a PyTorch model until it answers like another one.

    Args:
        source: ``zoo:NAME``, ``module:factory`` or ``file.py:factory``. It must take the inputs of the teacher, in
            their order. It starts from the weights it has: those of a factory's new model are random, drawn from the
            seed.
        teacher: A prepared model.
        options: How to train.
        data: Samples.
        checkpoint: See `onnxpress.distillation.lesson.train`.
        resume: Likewise.
        advance: Likewise.

    Returns:
        (the trained model, facts as `onnxpress.distillation.lesson.train` gives them).

    Raises:
        UsageError: there is no such source, or it has other outputs than the teacher.
        DataError: the data does not fit.
        ModelError: a model fails, or the loss is not finite.
    """
    specs = graph.input_specs(teacher)
    arguments = [
        InputArgument(
            name=name,
            dtype=spec.dtype.name,
            shape=tuple(size or f"{name}_{axis}" for axis, size in enumerate(spec.shape)),
            sizes={},
        )
        for name, spec in specs.items()
    ]
    outputs = tuple(value.name or "" for value in teacher.graph.outputs)
    with torch.random.fork_rng(), sources.users_path(source):
        torch.manual_seed(options.seed)
        network = sources.network(source, [str(each) for each in arguments])
        student = Named(network.module, tuple(specs), outputs).requires_grad_()
        if not any(True for _ in student.parameters()):
            raise ModelError(f"source {source}: has no weights that can be trained.")
        lesson = Lesson(teacher=teacher, outputs={name: name for name in outputs})
        facts = train(student, lesson, specs, options, data, checkpoint=checkpoint, resume=resume, advance=advance)
    return network.module.cpu().eval(), facts


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the weights of a model as `compress export --weights` reads them."""
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, path)
