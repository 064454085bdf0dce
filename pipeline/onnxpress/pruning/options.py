"""What can be asked of pruning, in a recipe (``prune: {amount: 30%}``) and on the command line alike."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from onnxpress import session, units
from onnxpress.errors import did_you_mean
from onnxpress.pruning import criteria
from onnxpress.selection import NodeSelection

Quantity = Literal["macs", "params", "bytes", "latency", "latency_ms"]
_PATTERN = re.compile(r"([1-9][0-9]?):([1-9][0-9]?)")


class PruneOptions(NodeSelection):
    """Options of the prune step."""

    method: str = "auto"
    """Which weights matter least: a file in ``onnxpress/pruning/criteria``; ``auto`` takes ``reconstruction`` with
    repair, which was best on all models measured, and ``l2`` without."""
    granularity: str = "channel"
    """``channel`` removes whole channels, heads and neurons; ``weight`` zeroes single weights; ``2:4`` keeps the two
    best of every four weights in a row of inputs."""
    amount: float | None = None
    """Share of the channels or weights to remove, ``30%`` or 0.3."""
    target: dict[Quantity, float] | None = None
    """``{macs: 0.7}`` keeps at most 70 % of the baseline's MACs, ``params``, ``bytes`` of weights, or ``latency`` as
    measured on this machine (also ``5 ms``, which is kept as ``latency_ms``)."""
    shape: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Sizes of free axes of the inputs, by name, with which MACs are counted; the others count as 1. In a recipe
    those of ``model.shape``."""
    allocation: Literal["auto", "uniform", "global", "sensitivity"] = "auto"
    """``uniform`` takes the same share of every group (or weight tensor), ``global`` what matters least in the whole
    model by the method's scores, ``sensitivity`` by the measured error of the outputs when one group alone is cut;
    ``auto`` takes ``global``, and with repair tries both and keeps what brings the outputs closer."""
    round_to: int = Field(default=0, ge=0)
    """Channel counts are kept multiples of this. 0 takes what the kernels work on, see `widths.preferred`: 16 on a CPU
    with AVX-512, else 8, and half of it, or less, where the amount or target cannot be reached otherwise."""
    provider: Annotated[str, AfterValidator(session.known_provider)] = "cpu"
    """Execution provider that the model is for: of the default of ``round_to``, and of measured latencies."""
    keep_depth: bool = False
    """Only narrow layers. Otherwise allocation by sensitivity also removes whole residual branches, see `branches`."""
    iterations: int = Field(default=1, ge=1, le=20)
    """Prune in so many equal steps, with a repair after each."""
    repair: bool = False
    """Re-solve the weights behind the cut by least squares, from calibration data without labels."""
    held_out: float | None = Field(default=None, ge=0, lt=1)
    """Share of the calibration samples to leave alone: those by which distillation with the same share will judge. In a
    recipe that of the distill step that follows."""

    @field_validator("method")
    @classmethod
    def _known_method(cls, value: str) -> str:
        if value not in (known := ["auto", *criteria.names()]):
            raise ValueError(f"unknown method {value!r}.{did_you_mean(value, known)}")
        return value

    @field_validator("granularity")
    @classmethod
    def _known_granularity(cls, value: str) -> str:
        match = _PATTERN.fullmatch(value)
        if value not in ("channel", "weight") and not (match and int(match[1]) < int(match[2])):
            raise ValueError(f"{value!r}: is neither channel nor weight nor a pattern like 2:4 (keep 2 of every 4)")
        return value

    @field_validator("amount", "held_out", mode="before")
    @classmethod
    def _share(cls, value: object) -> object:
        return None if value is None else units.parse_fraction(value)

    @field_validator("target", mode="before")
    @classmethod
    def _one_target(cls, value: object) -> object:
        if value is None:
            return None
        if isinstance(value, str):
            name, _, share = value.partition("=")
            value = {name.strip(): share}
        if not isinstance(value, dict) or len(value) != 1:
            raise ValueError(f"{value!r}: is no target. Write for example {{macs: 0.7}} (or params, bytes, latency)")
        name, limit = next(iter(value.items()))
        if name == "latency_ms":
            return {name: units.parse(f"{limit}ms", "ms")}
        if name == "latency" and isinstance(limit, str) and limit.strip().endswith("s"):
            return {"latency_ms": units.parse(limit, "ms")}
        return {name: units.parse_fraction(limit)}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = [name for name in ("amount", "target") if getattr(self, name) is not None]
        if self.granularity == "channel":
            if len(given) != 1:
                raise ValueError("granularity channel needs exactly one of amount and target (say how much to remove)")
            return self
        alone = self.model_fields_set & {"iterations", "keep_depth", "provider", "repair", "round_to", "target"}
        alone |= {"allocation"} if self.allocation == "sensitivity" else set()
        if alone:
            raise ValueError(f"{min(alone)} is for granularity channel only, not for {self.granularity}")
        if self.granularity == "weight" and not given:
            raise ValueError("granularity weight needs an amount, for example 50%")
        if self.pattern and (given or "allocation" in self.model_fields_set):
            raise ValueError(
                f"granularity {self.granularity} says itself how much is removed: leave out amount and allocation"
            )
        return self

    def iteration(self, number: int) -> Self:
        """Return the options of one iteration, the first being 1: equal parts of the target, or of the amount."""
        share = number / self.iterations
        if self.target is not None:
            return self.model_copy(update={"target": {name: 1 - (1 - to) * share for name, to in self.target.items()}})
        gone = (self.amount or 0) * (number - 1) / self.iterations
        return self.model_copy(update={"amount": ((self.amount or 0) * share - gone) / max(1 - gone, 1e-12)})

    @property
    def depends_on_host(self) -> bool:
        """Tell whether another machine may give another model."""
        measured = self.target is not None and not self.target.keys().isdisjoint({"latency", "latency_ms"})
        return self.granularity == "channel" and (self.round_to == 0 or measured)

    @property
    def criterion(self) -> str:
        """Return the method, ``auto`` resolved."""
        return self.method if self.method != "auto" else "reconstruction" if self.repair else "l2"

    @property
    def drops_branches(self) -> bool:
        """Tell whether whole residual branches may go: only where what that does to the outputs is measured."""
        return self.allocation == "sensitivity" and not self.keep_depth

    @property
    def needs_data(self) -> bool:
        """Tell whether calibration data are needed."""
        return self.repair or self.allocation == "sensitivity" or criteria.needs(self.criterion) != "nothing"

    @property
    def pattern(self) -> tuple[int, int] | None:
        """Return (n, m) when n of every m weights are kept, else None."""
        match = _PATTERN.fullmatch(self.granularity)
        return (int(match[1]), int(match[2])) if match else None
