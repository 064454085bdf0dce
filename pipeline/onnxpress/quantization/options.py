"""What can be asked of quantization, in a recipe (``quantize: {mode: static}``) and on the command line alike."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from onnxpress import session, units
from onnxpress.errors import did_you_mean
from onnxpress.quantization.params import ActivationType, WeightGrid
from onnxpress.selection import NodeSelection, RegularExpression
from onnxpress_calibration import calibrators

MEMORY_BUDGET_BYTES = 1 << 30
MAX_DROP = 1.0
"""What a metric may lose where nothing else is asked for, in its own unit."""
ACTIVATIONS = {
    "int8": "int8 activations run slower than float on x86 CPUs (the fast kernels take uint8), in format qdq a tensor "
    "with several readers even stays float; they are for TensorRT, CUDA and ARM",
    "uint16": "16-bit activations are computed in float on a CPU; they are for accelerators",
    "int16": "16-bit activations are computed in float on a CPU; they are for accelerators",
}
UNSIGNED = "uint8 weights run about as long as float on x86 CPUs (the fast kernels take int8), but saturate on none"


def _points(value: object) -> object:
    """Read ``1%`` and ``1pp`` as one point; a bare number is in the metric's own unit."""
    return value.removesuffix("pp").removesuffix("%") if isinstance(value, str) else value


def _decibels(value: object) -> object:
    return units.parse(value, "db") if isinstance(value, str) else value


def _bytes(value: object) -> object:
    return units.parse(value, "bytes") if isinstance(value, str) else value


class QuantizeOptions(NodeSelection):
    """Options of the quantize step."""

    mode: Literal["dynamic", "static", "weight-only", "fp16", "auto"] = "static"
    """``static`` fixes activation ranges from calibration data; ``dynamic`` computes them in each run; ``weight-only``
    leaves activations alone, and loses less with data; ``fp16`` is float16 where that cannot overflow; ``auto``
    chooses per layer, by measuring on this machine, what is fastest within ``max_drop``, ``min_sqnr`` or
    ``min_agreement``."""
    backend: Literal["onnxpress", "onnxruntime", "neural-compressor"] = "onnxpress"
    """Who quantizes (mode static): this product, onnxruntime's quantizer, or neural-compressor (PyTorch sources)."""
    calibrator: str = "mse"
    """How a static range follows from the statistics: a file in ``onnxpress_calibration/calibrators``."""
    format: Literal["qdq", "qoperator"] = "qdq"
    """How static int8 is written: QuantizeLinear / DequantizeLinear pairs around float operators, which every runtime
    reads, or onnxruntime's int8 operators themselves."""
    activations: ActivationType = "uint8"
    """The integers of static activations. On x86 only uint8 is fast; 16 bits run as float on a CPU."""
    weights: Literal["int8", "uint8"] = "int8"
    """The integers of weights. On x86 only int8 is fast."""
    bits: int = Field(default=8, ge=2, le=8)
    """Bits of a weight. Mode weight-only stores 8 or 4; else fewer than 8 are stored as int8, to show what a smaller
    grid would lose."""
    block_size: int | None = Field(default=None, ge=16, le=256)
    """Weight-only: how many weights share a scale, a power of two; by default 128 of 8 bits and 32 of 4."""
    keep_io: bool = True
    """fp16: leave the model's inputs and outputs float32."""
    symmetric: bool = False
    """Put the zero point of activations in the middle of their type."""
    per_tensor: bool = False
    """One weight scale per tensor instead of one per output channel."""
    require_int8: RegularExpression = None
    """Regular expression: refuse the result if a layer whose name matches does not run as an int8 kernel."""
    equalize: bool = True
    """static: rescale channels, exactly, so that one step fits all channels of an activation."""
    smooth: bool = True
    """static: divide the channels of a MatMul's input where that saves a third of the predicted error."""
    bias_correction: bool = True
    """static: take the mean error of each output channel out of its bias."""
    rounding: Literal["nearest", "reconstruct"] = "reconstruct"
    """Each weight to its nearest integer, or all weights of a channel together, so that the layer's output on
    calibration data changes least (static, auto; weight-only where there are calibration data)."""
    target_cpu: Literal["any", "avx2", "avx512", "vnni", "amx", "arm"] = "any"
    """The CPUs that will serve. x86 without VNNI (``avx2``, ``avx512``, so also ``any``) cuts sums of two products off
    at 16 bits: for such CPUs int8 weights are rounded so that it cannot happen."""
    verify: bool = True
    """Compare the quantized model with the float model, and refuse it when it lost more than the bounds allow."""
    accept_loss: bool = False
    """Keep a model that `verify` refuses; what it lost is in the notes."""
    samples: int | None = Field(default=None, gt=0)
    """Use only the first so many calibration samples."""
    memory_budget: Annotated[float, BeforeValidator(_bytes)] = Field(default=MEMORY_BUDGET_BYTES, gt=0)
    """Bytes of activations held at once while statistics are collected, ``512 MiB``; less takes more passes over the
    data and gives the same statistics."""
    max_drop: Annotated[float | None, BeforeValidator(_points)] = Field(default=None, ge=0)
    """What the metric may lose, in its own unit (``1%`` and ``1pp`` are one point of top-1); by default 1. Without a
    metric, what the float model's own probabilities say that a classifier loses. A bound for ``auto``; the other modes
    refuse a model above it."""
    min_sqnr: Annotated[float | None, BeforeValidator(_decibels)] = None
    """Least signal-to-quantization-noise ratio of the outputs, ``20 dB``; needs no labels. A bound for ``auto``;
    the other modes refuse a model below it (without a metric by default 10 dB)."""
    min_agreement: Annotated[float | None, BeforeValidator(_points)] = Field(default=None, ge=0, le=100)
    """Least share of samples with the float model's class, ``99%``; needs no labels. A bound for ``auto``; the
    other modes refuse a model below it (without a metric by default 90 %)."""
    budget: Annotated[timedelta, BeforeValidator(units.parse_duration)] = timedelta(minutes=5)
    """auto: about how long the search may take."""
    provider: Annotated[str, AfterValidator(session.known_provider)] = "cpu"
    """auto: execution provider to be fast on."""
    threads: int | None = Field(default=None, ge=1)
    """auto: threads of one run; None for as many as this process can really use."""
    seed: int = 0
    """auto: of synthetic inputs and the order of measurements."""

    @property
    def grid(self) -> WeightGrid:
        """The integers that weights may take."""
        return WeightGrid(bits=self.bits, unsigned=self.weights == "uint8")

    @property
    def block(self) -> int:
        """The weights that share a scale in mode weight-only."""
        return self.block_size or (128 if self.bits == 8 else 32)

    @property
    def reconstructs(self) -> bool:
        """Whether weights are rounded together."""
        return self.rounding == "reconstruct"

    @property
    def saturates(self) -> bool:
        """Whether products with nearest weights could saturate on a CPU that may serve.

        uint8 weights have a kernel that does not, and 2 · 63 · 255 fits 16 bits: weights of 7 bits never do. Signed
        activations do no less than unsigned ones; those of 16 bits are multiplied as floats.
        """
        integers = self.levels == 256 or self.mode != "static"
        return self.target_cpu in ("any", "avx2", "avx512") and self.weights == "int8" and self.bits == 8 and integers

    @property
    def depends_on_host(self) -> bool:
        """Whether another machine may give another model."""
        return self.mode == "auto"

    @property
    def half(self) -> bool:
        """Whether float16 is a choice of mode auto: a CPU computes it in float32, conversions on top."""
        return self.provider != "cpu"

    @property
    def levels(self) -> int:
        """The steps of an activation's grid."""
        return 2**16 if self.activations in ("uint16", "int16") else 2**8

    @property
    def notes(self) -> list[str]:
        """What a user of these options should know about where they run."""
        if self.mode == "weight-only":
            return []
        if self.mode == "fp16":
            return ["a CPU computes float16 in float32: it is faster only on GPUs and the like"]
        if self.mode == "dynamic":
            return [UNSIGNED] if self.weights == "uint8" else []
        notes = [ACTIVATIONS[self.activations]] if self.activations in ACTIVATIONS else []
        if self.weights == "uint8" and self.levels == 256:
            notes.append(UNSIGNED)
        if self.symmetric and self.activations == "int8":
            notes.append("symmetric int8: onnxruntime's CPU kernels take no Relu in, such a layer runs as float there")
        return notes

    @model_validator(mode="after")
    def _possible(self) -> QuantizeOptions:
        if self.mode == "weight-only" and self.bits not in (4, 8):
            raise ValueError(f"mode weight-only stores 8 or 4 bits, not {self.bits}.")
        if self.backend != "onnxpress" and self.mode != "static":
            raise ValueError(f"backend {self.backend} has mode static only, not {self.mode}.")
        if self.block & (self.block - 1):
            raise ValueError(f"block_size is a power of two, not {self.block}.")
        if self.format == "qoperator" and self.levels > 256:
            raise ValueError(f"format qoperator has no operators on {self.activations}. Use format qdq.")
        return self

    @field_validator("calibrator")
    @classmethod
    def _known_calibrator(cls, value: str) -> str:
        if value not in calibrators.names():
            raise ValueError(f"unknown calibrator {value!r}.{did_you_mean(value, calibrators.names())}")
        return value
