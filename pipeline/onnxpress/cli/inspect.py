"""The command ``inspect``."""

from __future__ import annotations

from pathlib import Path

import click

from onnxpress.cli.shared import INPUT, Result, axis_sizes, blaming, common, shape_option


@click.command()
@click.argument("model", type=INPUT)
@shape_option
@common
def inspect(model: Path, shape: tuple[str, ...], result: Result) -> None:
    """Show what MODEL holds: parameters, bytes and MACs by layer, operators, lineage, what could be quantized.

    Of a profile (`compress profile`): its samples, and range and distribution of each tensor.
    """
    from onnxpress import inspection, profile_inspection
    from onnxpress_calibration.profile import Profile

    if profile_inspection.is_profile(model):
        described = profile_inspection.document(Profile.read(model))
        result.show(profile_inspection.render(described, model), described)
        return
    with blaming(model):
        found = inspection.inspect(model, axis_sizes(shape))
    result.show(inspection.render(found), found)
