"""Which numbers of channels a layer may keep: multiples that the kernels like."""

from __future__ import annotations

import math
from collections.abc import Collection

from onnxpress.pruning import branches
from onnxpress.pruning.groups import Group
from onnxpress.pruning.options import PruneOptions


def preferred(provider: str, features: Collection[str]) -> int:
    """Return the multiple that an execution provider's kernels take channels in.

    onnxruntime's convolutions on the CPU work on blocks of one vector of 16 floats with AVX-512 and of 8 otherwise
    (MLAS, ``MlasNchwcGetBlockSize``); a block that is filled in part costs as much as a whole one. Tensor cores of GPUs
    want multiples of 8 in half precision (NVIDIA, "Deep learning performance guide", section on tensor cores).

    Args:
        provider: File name in ``onnxpress/providers``.
        features: Of the CPU, as in `host.Host`.
    """
    return 16 if provider == "cpu" and "avx512f" in features else 8


def widths(group: Group, options: PruneOptions) -> list[int]:
    """Return the numbers of channels that may be kept, ascending: multiples of the rounding, and all of them.

    Where branches may go and the group is all that one has (see `branches`), 0 is the first.
    """
    step = options.round_to // math.gcd(options.round_to, group.width)
    none = [0] if options.drops_branches and branches.gone(group) else []
    return [*none, *range(step, group.size, step), group.size]
