"""Pruning: `prune` and its options."""

from onnxpress.pruning.options import PruneOptions
from onnxpress.pruning.prune import prune

__all__ = ["PruneOptions", "prune"]
