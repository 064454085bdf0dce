"""Weights from a file into a module, without ever running a pickle."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from onnxpress.errors import ModelError, UsageError
from onnxpress.export.account import first_line
from onnxpress_calibration.archives import Archive

if TYPE_CHECKING:
    import torch

NESTED = ("state_dict", "model_state_dict", "model")
"""Where training scripts put the weights in a checkpoint."""
SHOWN = 3
TRUSTED = (
    "Where you trust it, write the weights alone: "
    "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')."
)


def load_weights(module: torch.nn.Module, path: Path) -> None:
    """Load a safetensors or .pt file into a module, all of it or nothing.

    Raises:
        UsageError: there is no such file.
        ModelError: it holds no weights, needs pickle, or does not fit the module; names the first that do not.
    """
    if not path.is_file():
        raise UsageError(f"weights {path}: no such file. Check the path.")
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
    try:
        module.load_state_dict(dict(weights), strict=False)
    except RuntimeError as error:
        raise ModelError(f"weights {path}: do not fit the model ({first_line(error)}).") from error


def _read(path: Path) -> Mapping[str, torch.Tensor]:
    import torch

    is_safetensors = path.suffix == ".safetensors"
    content: object = _safetensors(path) if is_safetensors else read_checkpoint(path, f"weights {path}", TRUSTED)
    for key in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ModelError(f"weights {path}: holds no dict of tensors. Save model.state_dict().")
    for name, value in content.items():
        if value.layout is not torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise ModelError(f"weights {path}: {name} is no plain tensor. Save model.state_dict() of the float model.")
    return content


def _safetensors(path: Path) -> Mapping[str, torch.Tensor]:
    from safetensors.torch import load_file

    try:
        found: Mapping[str, torch.Tensor] = load_file(path)
    except Exception as error:  # SafetensorError, and whatever a damaged header leads to
        raise ModelError(f"weights {path}: is no safetensors file, or truncated ({first_line(error)}).") from error
    return found


def read_checkpoint(path: Path, what: str, how: str, device: str | torch.device = "cpu") -> object:
    """Read what ``torch.save`` wrote, as long as that is tensors, numbers, text and containers: no code is run.

    Args:
        path: The file.
        what: What it is, in messages.
        how: What to do when it is not read, in messages.
        device: Where its tensors go.

    Raises:
        ModelError: it needs pickle, which can run any code, or is damaged.
    """
    import torch

    try:
        if zipfile.is_zipfile(path):
            with Archive(path, "", "") as archive:  # torch compresses nothing: a few bytes cannot become gigabytes
                if any(info.compress_type != zipfile.ZIP_STORED for info in archive.members.values()):
                    raise ValueError("it has compressed members, which torch does not write")
        return torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{what}: needs pickle, which can run any code, so it is not read. {how}") from error
    except Exception as error:  # torch raises whatever its readers raise
        raise ModelError(f"{what}: is not what torch.save writes, or truncated ({first_line(error)}). {how}") from error
