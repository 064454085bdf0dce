"""The training loop: any two PyTorch modules that turn feeds into named tensors, a student and a teacher.

Update number k is a pure function of the weights, the seed and k (with a budget: and of the clock). A checkpoint is
therefore the weights, Adam's moments and k; a killed run that resumes ends with the bits of one that was not killed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onnxpress.distillation.augment import Augment
from onnxpress.distillation.objective import Objective, Tensors
from onnxpress.distillation.options import DistillOptions
from onnxpress.distillation.processes import Processes
from onnxpress.distillation.samples import Batch, Samples, length
from onnxpress.errors import ModelError
from onnxpress.evaluation.fidelity import MASK
from onnxpress.export.account import first_line
from onnxpress.export.weights import read_checkpoint
from onnxpress.files import writing
from onnxpress_calibration.dataset import LABELS, Array

WARM_UP = 20
"""Updates; Adam's second moments mean little before. Not a share of the training: a short one needs as many."""
JUDGEMENTS = 20
EPOCHS = 100
VIEWED = 200
"""Held-out images that judge, at least: few samples are seen in several augmented views, at most so many:"""
VIEWS = 8
FLOOR = 1e-3
"""Least scale of a tensor, so that a bias of zeros moves, too (Adafactor: Shazeer, Stern 2018, arXiv:1804.04235)."""
CACHE_BYTES = 1 << 30
"""Teacher's answers that are kept in memory; beyond that they are computed again in each update."""

Teacher = Callable[[Mapping[str, Tensor]], Tensors]


@dataclass(kw_only=True)
class Progressed:
    """How far training is; all of it is in a checkpoint."""

    step: int = 0
    seconds: float = 0.0
    stale: int = 0
    """Judgements since the lowest held-out loss."""
    lowest: list[float] = field(default_factory=list)
    """Losses of the held-out samples at that judgement; known to the first process."""
    history: list[tuple[int, float, float]] = field(default_factory=list)
    """(update, mean training loss since the last entry, held-out loss) of every judgement."""
    kept: int = 0
    """Which of them the kept weights are of."""
    kept_weights: dict[str, Tensor] = field(default_factory=dict)


class Training:
    """A student in training; `run` does all of it."""

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        objective: Objective,
        training: Samples,
        held: Samples,
        augment: Sequence[Augment],
        options: DistillOptions,
        processes: Processes,
        *,
        piece: int | None = None,
    ) -> None:
        """Prepare; nothing is computed yet.

        Args:
            student: Gives the tensors that the objective compares; its parameters are trained in place.
            teacher: Gives the wanted tensors.
            objective: What is minimized.
            training: The samples to learn from.
            held: The samples that judge; may be none.
            augment: Changes of the inputs.
            options: What was asked for.
            processes: This process among all.
            piece: Samples that the models take at once where that is fixed; gradients of several pieces add up.
        """
        self.student, self.teacher, self.objective = student, teacher, objective
        self.judge = replace(objective, features=())
        self.augment, self.options, self.processes, self.piece = augment, options, processes, piece
        self.training, self.held = training, held
        self.batch_size = options.batch_size if piece is None else max(options.batch_size // piece, 1) * piece
        groups = [{"params": [each], "scale": scale(each)} for each in student.parameters()]
        self.optimizer = torch.optim.AdamW(groups, lr=options.learning_rate, weight_decay=options.weight_decay)
        self.module = processes.wrapped(student)
        self.done = Progressed()
        self._answers: dict[int, dict[str, Tensor]] | None = None
        self._views: list[tuple[dict[str, Tensor], Tensor | None, Tensors]] = []

    def run(self, *, checkpoint: Path | None, key: str, resume: bool, advance: Callable[[int], object]) -> Progressed:
        """Train to the end, and leave the best weights in the student.

        Args:
            checkpoint: Where to keep what is needed to continue; whoever publishes the result removes it.
            key: Says what this training is of; a checkpoint of something else is not continued.
            resume: Continue where the checkpoint is.
            advance: Called with the per mille done since the last call.

        Raises:
            ModelError: the loss is not finite, or a model fails.
        """
        try:
            return self._run(checkpoint=checkpoint, key=key, resume=resume, advance=advance)
        finally:
            # Whatever averages gradients must not outlive the process group: as its last owner it would end the group's
            # thread while it holds Python's lock, for which that thread may be waiting.
            self.module = self.student

    def _run(self, *, checkpoint: Path | None, key: str, resume: bool, advance: Callable[[int], object]) -> Progressed:
        if resume and checkpoint is not None:
            self._restore(checkpoint, key)
        shown, losses = 0, [0.0][:0]
        if not self.done.history:
            self._judge(losses)
        start = time.monotonic() - self.done.seconds
        judged = self._share(0.0)
        while True:
            self.done.seconds = self.processes.first(time.monotonic() - start)
            share = self._share(self.done.seconds)
            if share >= 1 or (self.held.count and self.done.stale >= self.options.patience):
                break
            losses.append(self._update(share))
            self.done.step += 1
            after = self._share(self.done.seconds)
            advance(int(1000 * after) - shown)
            shown = int(1000 * after)
            if int(after * JUDGEMENTS) > int(judged * JUDGEMENTS):
                judged = after
                self._judge(losses)
                losses = []
                if self.processes.rank == 0 and checkpoint is not None:
                    self._save(checkpoint, key)
        if self.held.count:
            self.student.load_state_dict(self.done.kept_weights)
        return self.done

    def _share(self, seconds: float) -> float:
        """Return how much of the training is done, from 0 to 1."""
        if self.options.budget is not None:
            return seconds / self.options.budget.total_seconds()
        return self.done.step / self._steps

    @property
    def _steps(self) -> int:
        each = self.training.epoch_steps(self.batch_size)
        return self.options.steps or (self.options.epochs or EPOCHS) * each

    def _rate(self, share: float) -> float:
        """Return the learning rate: half a cosine over the training, times a linear warm-up."""
        warm = min((self.done.step + 1) / WARM_UP, 1)
        return self.options.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * share))

    def _update(self, share: float) -> float:
        """Do one update with the next batch; return its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(share) * group["scale"]
        self.student.train()
        torch.manual_seed(self.options.seed + (self.done.step << 32))  # for the dropout of PyTorch models
        self.optimizer.zero_grad()
        group_index, positions = self.training.batch(self.done.step, self.batch_size, self.options.seed)
        batch = self._changed(self.training.take(group_index, positions), 3, self.done.step)
        rank, world = self.processes.rank, self.processes.world
        mine = np.arange(len(positions))[rank::world]
        idle = not len(mine)  # every process takes part in each backward pass, if only with a weight of zero
        mine = mine if len(mine) else np.arange(1)
        total, pieces = 0.0, _pieces(mine, self.piece)
        for index, part in enumerate(pieces):
            feeds, labels = self._tensors(batch, part)
            wanted = self._wanted(feeds, group_index, positions[part])
            weight = 0.0 if idle else len(part) * world / len(positions)
            with _unsynchronized(self.module, last=index == len(pieces) - 1):
                loss = weight * self.objective(self.module(feeds), wanted, labels, feeds.get(MASK))
                loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        self.optimizer.step()
        total = self.processes.mean(total)
        if not math.isfinite(total):
            raise ModelError(
                f"distill: the loss is {total} after {self.done.step} updates. Lower learning_rate, or check the data."
            )
        return total

    def _changed(self, batch: Batch, *draw: int) -> Batch:
        random = np.random.default_rng([self.options.seed, *draw])
        for change in self.augment:
            batch = change(batch, random)
        return batch

    def _tensors(self, batch: Batch, part: Array) -> tuple[dict[str, Tensor], Tensor | None]:
        device = self.processes.device
        chosen = {name: torch.from_numpy(np.ascontiguousarray(value[part])).to(device) for name, value in batch.items()}
        labels = chosen.pop(LABELS, None)
        return chosen, labels

    def _wanted(self, feeds: Mapping[str, Tensor], group: int, positions: Array) -> Tensors:
        """Return the teacher's answer, remembered where the inputs never change."""
        if self.augment:
            return self.teacher(feeds)
        if self._answers is None:
            self._answers = self._remembered()
        if group not in self._answers:
            return self.teacher(feeds)
        return {name: value[torch.from_numpy(positions)] for name, value in self._answers[group].items()}

    def _remembered(self) -> dict[int, dict[str, Tensor]]:
        kept: dict[int, dict[str, Tensor]] = {}
        room = CACHE_BYTES
        for index, group in enumerate(self.training.groups):
            answers = []
            for part in _pieces(np.arange(length(group)), self.piece or self.batch_size):
                answers.append(self.teacher(self._tensors(group, part)[0]))
                room -= sum(value.nbytes for value in answers[-1].values())
                if room < 0:
                    return kept
            kept[index] = {name: torch.cat([answer[name] for answer in answers]) for name in answers[0]}
        return kept

    def _judge(self, losses: list[float]) -> None:
        """Measure the held-out loss, in the first process for all; keep the weights unless others were surely better.

        Of twenty judgements by few samples the lowest is also the luckiest. So of those within a standard error of it
        the last is kept, which had the lowest learning rate, if it is not worse than the start: the one-standard-error
        rule (Breiman et al. 1984; Hastie et al., "The elements of statistical learning", section 7.10).
        """
        each = self._held_out_losses() if self.held.count and self.processes.rank == 0 else []
        score = self.processes.first(float(np.mean(each)) if each else math.inf)
        scores = [held_out for _, _, held_out in self.done.history]
        self.done.history.append((self.done.step, sum(losses) / len(losses) if losses else math.nan, score))
        if lowest := score < min(scores, default=math.inf):
            self.done.lowest = each
        self.done.stale = 0 if lowest else self.done.stale + 1
        alike = len(scores) > 0 and score <= scores[0] and _alike(each, self.done.lowest)
        if self.processes.first(float(lowest or alike)):
            self.done.kept = len(scores)
            self.done.kept_weights = {name: value.detach().clone() for name, value in self.student.state_dict().items()}

    @torch.no_grad()
    def _held_out_losses(self) -> list[float]:
        """Return how far the outputs of each sample are from the teacher's, in the mean over its views.

        Inner tensors only help to get there.
        """
        self._views = self._views or list(self._seen())
        self.student.eval()
        losses: list[float] = []
        for feeds, labels, wanted in self._views:
            given = self.student(feeds)
            answers = {name: given[name] for name in self.judge.outputs}
            size = max(len(value) for value in feeds.values() if value.ndim)
            apart = all(len(value) == size for value in (*answers.values(), *wanted.values()))
            for part in [slice(at, at + 1) for at in range(size)] if apart else [slice(None)]:
                mine, right = ({name: value[part] for name, value in each.items()} for each in (answers, wanted))
                chosen, mask = (None if each is None else each[part] for each in (labels, feeds.get(MASK)))
                losses += [float(self.judge(mine, right, chosen, mask))] * (1 if apart else size)
        found: list[float] = np.reshape(losses, (-1, self.held.count)).mean(axis=0).tolist()
        return found

    def _seen(self) -> Iterator[tuple[dict[str, Tensor], Tensor | None, Tensors]]:
        """Yield the held-out samples, and few of them in changed views, too, with the outputs of the teacher."""
        views = min(-(-VIEWED // self.held.count), VIEWS) if self.augment and self.held.count else 1
        for view in range(views):
            for whole in self.held.groups:
                group = self._changed(whole, 4, view) if view else whole
                for part in _pieces(np.arange(length(group)), self.piece or self.batch_size):
                    feeds, labels = self._tensors(group, part)
                    answer = self.teacher(feeds)
                    yield feeds, labels, {name: answer[name] for name, _ in self.judge.outputs.values()}

    def _save(self, path: Path, key: str) -> None:
        models = {"student": self.student.state_dict(), "adam": self.optimizer.state_dict()}
        with writing(path, force=True) as scratch:
            torch.save({"key": key, "done": vars(self.done)} | models, scratch / path.name)

    def _restore(self, path: Path, key: str) -> None:
        if not path.is_file():
            return
        state = read_checkpoint(path, f"checkpoint {path}", "Delete it.", self.processes.device)
        if not isinstance(state, dict) or state.get("key") != key:
            return
        try:
            self.student.load_state_dict(state["student"])
            self.optimizer.load_state_dict(state["adam"])
            self.done = Progressed(**state["done"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(f"checkpoint {path}: is damaged ({first_line(error)}). Delete it.") from error


def scale(parameter: Tensor) -> float:
    """Return the root mean square of a tensor, the unit of its steps.

    Folded BatchNorms leave weights whose sizes differ by orders of magnitude: one absolute step that moves the large
    ones ruins the small ones. Relative steps: You et al. 2020 (LAMB, arXiv:1904.00962).
    """
    return max(float(parameter.detach().double().square().mean().sqrt()), FLOOR)


def _alike(losses: Sequence[float], lowest: Sequence[float]) -> bool:
    """Tell whether the losses of samples are within a standard error of other losses of the same samples."""
    worse = np.subtract(losses, lowest)
    return len(worse) > 1 and bool(worse.mean() <= worse.std(ddof=1) / math.sqrt(len(worse)))


def _pieces(positions: Array, size: int | None) -> list[Array]:
    return [positions] if size is None else [positions[i : i + size] for i in range(0, len(positions), size)]


def _unsynchronized(module: nn.Module, *, last: bool) -> Any:  # noqa: ANN401 - a context manager without a public type
    """Let gradients add up in this process; they are averaged over all in the last piece's backward pass."""
    if isinstance(module, nn.parallel.DistributedDataParallel) and not last:
        return module.no_sync()
    return nullcontext()
