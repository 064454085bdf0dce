"""One process, or the several that ``torchrun`` starts: who this one is, and what they tell each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.utils import deterministic as memory

from onnxpress import host


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """This process among all."""

    rank: int
    world: int
    device: torch.device

    def wrapped(self, module: nn.Module) -> nn.Module:
        """Return a module whose gradients are averaged over all processes in each backward pass."""
        if self.world == 1:
            return module
        return nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)

    def mean(self, value: float) -> float:
        """Return the mean of a number over all processes."""
        if self.world == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor)
        return float(tensor) / self.world

    def first(self, value: float) -> float:
        """Return the first process's number, so that all decide alike."""
        if self.world == 1:
            return value
        tensor: Tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.broadcast(tensor, 0)
        return float(tensor)


def rank() -> int:
    """Return which process this is; only 0 writes and speaks."""
    return int(os.environ.get("RANK", "0"))


@contextmanager
def joined() -> Iterator[Processes]:
    """Join the other processes while the block runs; afterwards torch's state is as it was: threads, random numbers.

    On a CPU every operation is deterministic, so that one seed gives one result. New memory is not filled first,
    as torch then does to show what reads it too early: that takes a tenth of an update or more.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(max(1, host.usable_threads() // world))
    torch.use_deterministic_algorithms(not cuda)
    filled: bool = memory.fill_uninitialized_memory  # type: ignore[attr-defined]
    memory.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if world > 1:
        distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        with torch.random.fork_rng():
            yield Processes(rank=rank(), world=world, device=device)
    finally:
        if world > 1:
            distributed.destroy_process_group()
            _leave()
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        memory.fill_uninitialized_memory = filled  # type: ignore[attr-defined]


def _leave() -> None:
    """Remove the folders that torchrun made in TMPDIR for its processes, as far as they are empty; it does not."""
    report = os.environ.get("TORCHELASTIC_ERROR_FILE", "")
    if "torchelastic_" not in report:  # the user named a folder for logs
        return
    with suppress(OSError):  # not empty: another process is there
        for folder in Path(report).parents:
            folder.rmdir()
            if folder.name.startswith("torchelastic_"):
                return
