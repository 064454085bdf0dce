"""The prune step: from a model and options to an `Edit`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxpress import graph, host, macs, parameters
from onnxpress.artifact import Edit, Skip
from onnxpress.errors import ModelError, UsageError
from onnxpress.export.passes import shapes
from onnxpress.export.passes.constants import lift
from onnxpress.progress import Stage, unshown
from onnxpress.pruning import allocation, criteria, gradients, proof, sensitivity, surgery
from onnxpress.pruning.evidence import Evidence, collect
from onnxpress.pruning.groups import Analysis, Group, analyze
from onnxpress.pruning.latency import Latency
from onnxpress.pruning.layout import label
from onnxpress.pruning.options import PruneOptions
from onnxpress.pruning.repair import repair
from onnxpress.pruning.sparsity import packed_bytes, sparsify
from onnxpress.pruning.stored import pack, packed, unpack
from onnxpress.pruning.untying import drop_zero_states, untie_parameters
from onnxpress.pruning.widths import preferred, widths
from onnxpress.session import SessionOptions
from onnxpress_calibration.dataset import Dataset

FINEST = 4
"""Without the user's word, counts are rounded to at least this: what needs a finer cut leaves too little to work."""


def prune(model: ir.Model, options: PruneOptions, data: Dataset | None = None, stage: Stage = unshown) -> Edit:
    """Remove channels, or zero single weights, and prove that what is left computes what it should.

    Args:
        model: A prepared model (constants lifted, BatchNorm folded where possible); it is not changed.
        options: What to remove.
        data: Samples for the proof (noise of the right shapes where there are none) and for the repair.
        stage: Shows what takes long, see `progress.Progress.stage`.

    Returns:
        The pruned model. Facts, for every granularity: ``params_before``, ``params_after``; for channels also
        ``macs_before``, ``macs_after``, ``macs_ratio``, ``free_axes`` (what they count as),
        ``groups``, ``groups_skipped``, ``prunable_macs_pct`` (MACs of
        the nodes that at least one removable channel enters or leaves), ``proof_error`` (see `proof.prove`; of the cut,
        before any repair), ``branches_removed``, ``layers_repaired``, ``method``, ``allocation`` and ``round_to`` as
        taken; with a target of latency ``latency_before_ms``, ``latency_ratio`` and its 95 % interval
        ``latency_ratio_ci95``. For single weights ``sparsity``, the share of zeros among them, and
        ``compressed_bytes_before`` and ``compressed_bytes_after``: the file stays as large, its compressed size does
        not.

    Raises:
        UsageError: the target cannot be reached, include and exclude leave no node, or repair has no data.
        ModelError: all weights are graph inputs.

    """
    if options.needs_data and data is None:
        why = "repair" if options.repair else f"{options.criterion} with allocation {options.allocation}"
        raise UsageError(f"prune: {why} needs calibration data. Give --calibration DATA, or data.calibration.")
    work = model.clone()
    lift(work)
    unpack(work)
    if data is not None and options.held_out:
        data, _ = data.split(graph.input_specs(work), options.held_out)
    if not any(options.selects(label(node)) for node in graph.nodes(work)):
        raise UsageError(
            f"include {options.include!r}, exclude {options.exclude!r}: no node is left. See `compress inspect`."
        )
    if options.granularity != "channel":
        return _weights(work, options, data, stage)
    few = None if data is None else data.drawn(graph.input_specs(work), sensitivity.SAMPLES)  # read once for all
    if options.allocation != "auto":
        return _channels(work, options, data, few, stage)
    if few is None or not options.repair:
        return _channels(work, options.model_copy(update={"allocation": "global"}), data, few, stage)
    tried = [options.model_copy(update={"allocation": each}) for each in ("global", "sensitivity")]
    edits = [_channels(work.clone(), each, data, few, stage) for each in tried]
    return min(edits, key=lambda edit: sensitivity.outputs_error(work, edit.model, few))


def _weights(work: ir.Model, options: PruneOptions, data: Dataset | None, stage: Stage) -> Edit:
    """Zero single weights of a model, in place."""
    before = {
        "params_before": parameters.count(work),
        "compressed_bytes_before": packed_bytes(packed(work)),
    }
    changed, skipped, sparsity = sparsify(work, options, _evidence(work, options, data, stage))
    if not changed:
        asked = options.granularity if options.amount is None else f"amount {100 * options.amount:g}%"
        reasons = "; ".join(sorted({f"{skip.op}: {skip.reason}" for skip in skipped}))
        raise UsageError(f"{asked}: removes nothing ({reasons or 'less than one weight of each layer'}). Ask for more.")
    pack(work)
    facts = {
        **before,
        "params_after": before["params_before"],
        "compressed_bytes_after": packed_bytes(work),
        "sparsity": sparsity,
    }
    return Edit(model=work, changed=tuple(changed), skipped=tuple(skipped), facts=facts)


def _channels(work: ir.Model, options: PruneOptions, data: Dataset | None, few: Dataset | None, stage: Stage) -> Edit:
    """Remove channels of a model, in place, in as many iterations as the options ask for."""
    untie_parameters(work)
    drop_zero_states(work)
    stated = shapes.known(work)
    shapes.infer(work)
    reference, outputs = work.clone(), {str(value.name): value for node in work.graph for value in node.outputs}
    with stage("find groups", None):
        analysis = analyze(work)
    if not analysis.prunable:
        _refuse_replaceable(work)
    (unit, limit), *_ = (options.target or {"macs": 1.0}).items()
    latency, asked = None, f"{unit}={limit:.3g}"
    if unit in ("latency", "latency_ms"):
        with stage("time the layers", None):
            latency = Latency(reference, data, SessionOptions(provider=options.provider))
        share = min(limit / latency.whole_ms, 1.0) if unit == "latency_ms" else limit
        options = options.model_copy(update={"target": {"latency": share}})
        if unit == "latency_ms":
            asked = f"latency={limit:.3g}ms ({share:.3g} of the baseline's {latency.whole_ms:.3g} ms)"
    known = macs.sizes(work, options.shape)
    weigh = functools.partial(macs.total, known=known)
    measure = latency or (weigh if unit == "macs" else allocation.MEASURES[unit])
    whole = measure(work)

    def least(counts: allocation.Counts) -> float:
        if latency is None:
            return allocation.Scale(work, list(counts), measure, whole).ratio(counts)
        choice = {group: allocation.best(np.zeros(group.size), count) for group, count in counts.items()}
        return latency.compare(reference, surgery.without(work, choice)).value

    with stage("see how far it can go", None):
        options, groups, skipped = _rounded(analysis, options, asked, least)
    facts: dict[str, Any] = {
        "params_before": parameters.count(work),
        "macs_before": weigh(work),
        "free_axes": macs.stated(work, options.shape),
        "groups": len(groups),
        "groups_skipped": len(analysis.groups) - len(groups),
        "channels_before": sum(group.size for group in groups),
        "prunable_macs_pct": 100 * _prunable_share(work, groups, known),
        "method": options.criterion,
        "allocation": options.allocation,
        "round_to": options.round_to,
    }
    if not groups and options.amount:
        raise _nothing(options, groups, skipped)
    kept, errors, changed, removed, branches = surgery.Kept({}), [], [], 0, 0
    repaired: Sequence[str] = ()
    unrepaired: Sequence[Skip] = ()
    for number in range(1, options.iterations + 1):
        groups = groups if number == 1 else _selected(analyze(work), options)[0]
        evidence, importances = _evidence(work, options, data, stage), {}
        with stage(f"score {sum(group.size for group in groups)} channels", len(groups)) as advance:
            for group in groups:
                importances[group] = criteria.importance(options.criterion, group, evidence)
                advance(1)
        if options.allocation == "sensitivity" and few is not None:
            importances = sensitivity.measured(work, groups, importances, options, evidence, few, stage)
        now = options.iteration(number)
        if latency is None:
            choice = allocation.choose(groups, now, importances, allocation.Scale(work, groups, measure, whole))
        else:
            choice = latency.cut(work, reference, groups, now, importances, stage)
        removed += sum(int(np.count_nonzero(~keep)) for keep in choice.values())
        branches += sum(not keep.any() for keep in choice.values())
        masked = surgery.masked(work, choice)
        kept = kept.then(surgery.Kept(choice))
        changed += surgery.cut(work, choice)
        with stage("compare with the masked model", None):
            errors.append(proof.prove(work, masked, data))
        if options.repair and data is not None:
            repaired, unrepaired = repair(work, reference, kept, outputs, data, stage)
    if latency is None and options.target is not None and (left := measure(work) / whole) > limit + 1e-9:
        raise UsageError(
            f"target {asked}: {options.iterations} iterations end at {left:.3g} of the baseline's {unit}. Use fewer of "
            "them, or ask for less."
        )
    if not removed and options.amount:
        raise _nothing(options, groups, skipped)
    left = weigh(work)
    facts |= {
        "params_after": parameters.count(work),
        "macs_after": left,
        "macs_ratio": left / facts["macs_before"] if facts["macs_before"] else 1.0,
        "channels_after": facts["channels_before"] - removed,
        "proof_error": max((error for error in errors if error is not None), default=None),
        "branches_removed": branches,
        "layers_repaired": len(repaired),
    }
    if latency is not None:
        with stage("time the result", None):
            ratio = latency.compare(reference, work)
        facts |= {
            "latency_before_ms": latency.whole_ms,
            "latency_ratio": ratio.value,
            "latency_ratio_ci95": [ratio.low, ratio.high],
        }
    pack(work)
    shapes.restore(work, stated)
    return Edit(model=work, changed=tuple(dict.fromkeys(changed)), skipped=(*skipped, *unrepaired), facts=facts)


def _refuse_replaceable(work: ir.Model) -> None:
    """Say it when nothing can be removed because the weights are the caller's.

    Raises:
        ModelError: a weight is a graph input.

    """
    for node in work.graph:
        weight = node.inputs[1] if node.op_type in ("Conv", "ConvTranspose", "Gemm") else None
        if weight is not None and weight.is_graph_input():
            raise ModelError(
                f"node {label(node)!r}: its weight {weight.name!r} is a graph input, which the caller may replace, and "
                "nothing else can be removed. Export the model with its weights as initializers."
            )


def _rounded(
    analysis: Analysis, options: PruneOptions, asked: str, least: Callable[[allocation.Counts], float]
) -> tuple[PruneOptions, list[Group], list[Skip]]:
    """Settle what channel counts are rounded to; return the options with it, the groups that can shrink, the others.

    Without the user's word it is what the kernels take, halved as long as the amount or target cannot be reached.

    Args:
        analysis: Of the model.
        options: As given.
        asked: The target, for messages.
        least: Returns the share of the target's quantity that is left at the given widths.

    Raises:
        UsageError: the target cannot be reached; the message says how far the model can go.

    """
    round_to = options.round_to or preferred(options.provider, host.describe().features)
    while True:
        tried = options.model_copy(update={"round_to": round_to})
        groups, skipped = _selected(analysis, tried)
        counts = allocation.narrowest(groups, tried)
        if options.target is not None:
            ((unit, share),) = options.target.items()
            left = 0.0 if share >= 1 else least(counts)
        else:
            share, channels = 1 - (options.amount or 0.0), sum(group.size for group in analysis.prunable)
            left = 1 - sum(group.size - count for group, count in counts.items()) / max(channels, 1)
        if left <= share or options.round_to or round_to <= FINEST or not analysis.prunable:
            break
        round_to //= 2
    if options.target is not None and left > share:
        if not groups and skipped:
            why = min(skipped, key=lambda skip: skip.op == "output")
            raise UsageError(f"target {asked}: nothing can be removed. {why.op} {why.where!r}: {why.reason}.")
        raise UsageError(
            f"target {asked}: cannot be reached, all that can be removed leaves {left:.3g} of the "
            f"baseline's {unit}. Ask for at least that much, or allow more with round_to and exclude."
        )
    return tried, groups, skipped


def _evidence(model: ir.Model, options: PruneOptions, data: Dataset | None, stage: Stage) -> Evidence:
    """Return what the method wants to know of the weights' inputs."""
    needs = criteria.needs(options.criterion)
    if data is None or (needs == "nothing" and options.allocation != "sensitivity"):
        return Evidence()
    derivatives = gradients.squared(model, data, stage) if needs == "gradients" else {}
    return replace(collect(model, data, stage), derivatives=derivatives)


def _selected(analysis: Analysis, options: PruneOptions) -> tuple[list[Group], list[Skip]]:
    """Return the groups that may and can become smaller, and why the others do not."""
    groups, skipped = [], list(analysis.skipped)
    for group in analysis.prunable:
        node = group.makers[0].node
        excluded = [label(each.node) for each in group.makers if not options.selects(label(each.node))]
        if excluded:
            skipped.append(
                Skip(where=group.name, op=node.op_type, reason=f"{excluded[0]} is left out by include or exclude")
            )
        elif len(widths(group, options)) == 1:
            reason = f"{group.size} channels of width {group.width}: none can go at round_to {options.round_to}"
            skipped.append(Skip(where=group.name, op=node.op_type, reason=reason))
        else:
            groups.append(group)
    return groups, skipped


def _nothing(options: PruneOptions, groups: Sequence[Group], skipped: Sequence[Skip]) -> UsageError:
    """Say why an amount removes nothing, and what would."""
    asked = f"amount {100 * (options.amount or 0):g}%"
    if not groups:
        why = min(skipped, key=lambda skip: skip.op == "output", default=None)
        reason = "no layer has channels that may go" if why is None else f"{why.op} {why.where!r}: {why.reason}"
        return UsageError(f"{asked}: nothing can be removed. {reason}.")
    least = min((group.size - widths(group, options)[-2]) / sum(each.size for each in groups) for group in groups)
    return UsageError(
        f"{asked}: removes nothing, because counts stay multiples of {options.round_to}: one such step is "
        f"{100 * least:.2g} % of the channels. Ask for more, or for a smaller --round-to."
    )


def _prunable_share(model: ir.Model, groups: list[Group], known: macs.Sizes) -> float:
    total = macs.total(model, known)
    cut = {member.value for group in groups for member in group.members}
    counted = sum(macs.of(node, known) or 0 for node in model.graph if cut.intersection(node.inputs[:2]))
    return counted / total if total else 0.0
