"""Weights from a file into a module, without ever running a pickle."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from onnxpress.errors import ModelError, UsageError
from onnxpress.export.account import first_line

if TYPE_CHECKING:
    import torch

NESTED = ("state_dict", "model_state_dict", "model")
"""Where training scripts put the weights in a checkpoint."""
SHOWN = 3


def load_weights(module: torch.nn.Module, path: Path) -> None:
    """Load a safetensors or .pt file into a module, all of it or nothing.

    Raises:
        UsageError: there is no such file.
        ModelError: it holds no weights, needs pickle, or does not fit the module; names the first that do not.
    """
    weights = _read(path)
    expected = module.state_dict()
    shared = {tensor.data_ptr() for name, tensor in expected.items() if name in weights and tensor.numel()}
    missing = [name for name in expected if name not in weights and expected[name].data_ptr() not in shared]
    unexpected = [name for name in weights if name not in expected]
    shapes = [
        f"{name} is {list(weights[name].shape)}, the model has {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    for problem, names in (
        ("lacks", missing),
        ("has, but the model does not,", unexpected),
        ("has other shapes:", shapes),
    ):
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            raise ModelError(
                f"weights {path}: {problem} {', '.join(names[:SHOWN])}{more}. They belong to another model; build the "
                "one they were saved from."
            )
    module.load_state_dict(dict(weights), strict=False)


def _read(path: Path) -> Mapping[str, torch.Tensor]:
    import torch

    if not path.is_file():
        raise UsageError(f"weights {path}: no such file. Check the path.")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            found: Mapping[str, torch.Tensor] = load_file(path)
        except SafetensorError as error:
            raise ModelError(f"weights {path}: is no safetensors file, or truncated ({first_line(error)}).") from error
        return found
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"weights {path}: needs pickle, which can run any code, so it is not read. Where you trust it, write the "
            "weights alone: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')."
        ) from error
    except (RuntimeError, ValueError, EOFError, OSError) as error:
        raise ModelError(f"weights {path}: is no file of weights, or truncated ({first_line(error)}).") from error
    for key in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ModelError(f"weights {path}: holds no dict of tensors. Save model.state_dict().")
    return content
