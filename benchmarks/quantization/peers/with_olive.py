"""Olive's static quantization for the CPU (it drives onnxruntime's quantizer)."""

import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import common
from olive.data.config import DataComponentConfig, DataConfig
from olive.data.registry import Registry
from olive.hardware import AcceleratorSpec
from olive.model import ONNXModelHandler
from olive.passes.olive_pass import create_pass_from_dict
from olive.passes.onnx.quantization import OnnxStaticQuantization

asked = common.request()


class Samples:
    """The feeds, in order, as Olive's data loaders give them."""

    def __init__(self) -> None:
        self.feeds = common.feeds(asked["samples"])

    def __len__(self) -> int:
        return len(self.feeds)

    def __getitem__(self, index: int) -> tuple:
        if index >= len(self.feeds):
            raise IndexError(index)
        return self.feeds[index], 0


@Registry.register_dataset()
def feeds_dataset(data_dir: str | None = None, **_: object) -> Samples:  # noqa: ARG001 - Olive passes it
    """Return the samples."""
    return Samples()


@Registry.register_dataloader()
def feeds_loader(dataset: Samples, **_: object) -> Samples:
    """Return the samples, unbatched."""
    return dataset


def work() -> None:
    """Quantize."""
    data = DataConfig(
        name="calibration",
        type="DummyDataContainer",
        load_dataset_config=DataComponentConfig(type="feeds_dataset"),
        dataloader_config=DataComponentConfig(type="feeds_loader"),
    )
    config = {"data_config": data, "per_channel": True, "activation_type": "uint8", "precision": "int8"}
    chosen = create_pass_from_dict(
        OnnxStaticQuantization,
        config,
        disable_search=True,
        accelerator_spec=AcceleratorSpec("cpu", "CPUExecutionProvider"),
    )
    with tempfile.TemporaryDirectory() as folder:
        made = chosen.run(ONNXModelHandler(asked["model"]), str(Path(folder) / "out"))
        shutil.copy(made.model_path, asked["output"])


common.report(work)
