"""The commands ``gate`` and ``gate init``."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxpress.cli.shared import (
    INPUT,
    OUTPUT,
    RUN_DIR,
    STANDARD_OUTPUT,
    TEXT,
    Result,
    common,
    name_models,
    preprocessing_option,
)

if TYPE_CHECKING:
    from onnxpress.gate.measure import Plan
    from onnxpress.gate.policy import Policy
    from onnxpress.gate.rules import Need
    from onnxpress.report.report import Report
    from onnxpress_calibration.preprocessing import Preprocessing

POLICY_FILE = Path("compress-gate.yaml")
HEADROOM = "25%"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Where the numbers come from: a finished run, or models and what to measure them with."""

    targets: tuple[Path, ...]
    baseline: Path | None
    data: str | None
    metric: str | None
    calibration: str | None
    preprocessing: Preprocessing | None
    samples: int | None
    provider: str
    threads: int | None
    budget: str | None

    @property
    def run_folder(self) -> Path | None:
        """The folder of a finished run; None where something else is judged."""
        return self.targets[0] if len(self.targets) == 1 and self.targets[0].is_dir() else None

    @property
    def finished(self) -> bool:
        """Whether there is nothing to measure."""
        return self.run_folder is not None or (len(self.targets) == 1 and self.targets[0].suffix == ".json")


def evidence_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say what is judged; they arrive as one `Evidence`."""

    @click.argument("targets", nargs=-1, required=True, type=RUN_DIR)
    @click.option(
        "--baseline", type=INPUT, help="The float model; default the policy's, or the first of several MODELs."
    )
    @click.option(
        "--data", type=TEXT, metavar="DATA", help="Samples for rules of accuracy; the benchmark runs on them, too."
    )
    @click.option("--metric", help="As for `compress evaluate`.")
    @click.option(
        "--calibration", type=TEXT, metavar="DATA", help="What MODELs were calibrated with: shown to be other samples."
    )
    @preprocessing_option
    @click.option("--samples", type=click.IntRange(min=1), help="Use only the first so many samples of --data.")
    @click.option("--ep", "provider", default="cpu", help="Execution provider.")
    @click.option("--threads", type=int, help="Intra-op threads; default what this process may really use.")
    @click.option("--budget", help="Time for the benchmark, for example 60s.")
    @functools.wraps(function)
    def command(
        *args: Any,  # noqa: ANN401
        targets: tuple[Path, ...],
        baseline: Path | None,
        data: str | None,
        metric: str | None,
        calibration: str | None,
        preprocessing: Preprocessing | None,
        samples: int | None,
        provider: str,
        threads: int | None,
        budget: str | None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        evidence = Evidence(
            targets=targets,
            baseline=baseline,
            data=data,
            metric=metric,
            calibration=calibration,
            preprocessing=preprocessing,
            samples=samples,
            provider=provider,
            threads=threads,
            budget=budget,
        )
        function(*args, evidence=evidence, **options)

    return command


class GateGroup(click.Group):
    """``gate RUN_DIR`` and ``gate init RUN_DIR``: what is no command of its own is what is judged."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the command's name in front where it is left out."""
        return super().parse_args(ctx, args if args and args[0] in self.commands else ["judge", *args])


class Judge(click.Command):
    """The command that needs no name."""

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show it without a name."""
        formatter.write_usage("compress gate", " ".join(self.collect_usage_pieces(ctx)))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Name the other command of the group, which its own help would not show."""
        with formatter.section("Commands"):
            formatter.write_dl([("init TARGETS", init.get_short_help_str(limit=200))])


@click.group(cls=GateGroup)
def gate() -> None:
    """Judge measurements by a policy; exit code 1 when a rule fails."""


@gate.command(cls=Judge)
@evidence_options
@click.option("--policy", type=INPUT, default=POLICY_FILE, help="The rules, schema onnxpress.policy/1.")
@click.option("--variant", "variants", multiple=True, help="Judge only this one; again for more.")
@click.option("--static", is_flag=True, help="Time nothing: only rules whose numbers are the same on every machine.")
@click.option("--keep-going", is_flag=True, help="Time the models even when a cheaper rule has failed already.")
@click.option("--strict", is_flag=True, help="Every warning is an error.")
@click.option("--max-warnings", type=click.IntRange(min=0), help="More warnings than this fail the gate.")
@click.option("--exit-zero", is_flag=True, help="Only report: exit code 0 when the gate fails or cannot decide.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for all of the forms below.")
@click.option("--report", type=OUTPUT, help="Write all measurements, for `compress baseline` and `compress report`.")
@click.option("--junit", type=OUTPUT, help="Write the checks as JUnit XML.")
@click.option("--sarif", type=OUTPUT, help="Write the checks as SARIF 2.1.0.")
@click.option("--markdown", type=OUTPUT, help="Write the report as Markdown.")
@click.option("--html", type=OUTPUT, help="Write the report as HTML.")
@click.option("--benchmark-json", type=OUTPUT, help="Write the numbers for github-action-benchmark.")
@click.option(
    "--annotations",
    type=click.Choice(["auto", "github", "none"]),
    default="auto",
    help="Workflow commands, step summary and outputs; auto: inside a GitHub action.",
)
@common
def judge(
    evidence: Evidence,
    policy: Path,
    variants: tuple[str, ...],
    static: bool,
    keep_going: bool,
    strict: bool,
    max_warnings: int | None,
    exit_zero: bool,
    out: Path | None,
    report: Path | None,
    junit: Path | None,
    sarif: Path | None,
    markdown: Path | None,
    html: Path | None,
    benchmark_json: Path | None,
    annotations: str,
    result: Result,
) -> None:
    """Judge a release by a policy: TARGETS is a finished RUN_DIR, or models that are measured as the rules need it.

    Exit code 0 when it passes, 1 when a rule fails, 4 when evidence is missing or cannot decide and the policy says it
    matters. No policy yet? `compress gate init TARGETS` writes a first one. Inside a GitHub action it also writes
    annotations, the step summary and the step's outputs.
    """
    from datetime import UTC, datetime

    from onnxpress.gate import check, github, outputs, reader
    from onnxpress.gate.gate import gate as run
    from onnxpress.report.formats import terminal

    forms = {
        "report": report,
        "junit": junit,
        "sarif": sarif,
        "markdown": markdown,
        "html": html,
        "benchmark": benchmark_json,
    }
    files = {form: path for form, path in forms.items() if path is not None}
    if out is not None:
        result.outputs.folder(out)
        files = {form: out / name for form, name in outputs.FILES.items()} | files
    for path in set(outputs.paths(files)) - set(forms.values()):  # the others are options, which are claimed already
        result.outputs.claim(path)
    rules = reader.read(policy)
    for named in (rules.baseline_model, rules.baseline_metrics):
        if named is not None:
            result.outputs.reads(Path(named))
    rules = rules.strict() if strict else rules
    today = datetime.now(UTC).date()

    def judged(measured: Report, skipped: dict[Need, str]) -> Report:
        return measured.with_checks(
            run(measured, rules, today, variants=variants, skipped=skipped, max_warnings=max_warnings)
        )

    found = _judged(evidence, rules, judged, static=static, keep_going=keep_going, result=result)
    outputs.write(files, found, rules, today, result.outputs)
    code = check.exit_code(found.checks)
    if evidence.run_folder is not None and not static:
        _rewrite(found, evidence.run_folder)
    if annotations == "github" or (annotations == "auto" and os.environ.get("GITHUB_ACTIONS") == "true"):
        written = files.get("html") or (evidence.run_folder / "report.html" if evidence.run_folder else "")
        click.echo(
            github.publish(found, str(policy), os.environ, code=code, html=str(written)),
            nl=False,
            err=result.json_target == STANDARD_OUTPUT,
        )
    result.show(terminal.gate(found, rules.path, code), outputs.document(found, rules, code))
    sys.exit(0 if exit_zero and code in (1, 4) else code)


@gate.command()
@evidence_options
@click.option("-o", "--output", type=OUTPUT, default=POLICY_FILE, help="Where to write the policy.")
@click.option("--variant", "variants", multiple=True, help="Which must pass it; default all but the baseline.")
@click.option("--headroom", default=HEADROOM, help="How much worse than now a number may get.")
@common
def init(evidence: Evidence, output: Path, variants: tuple[str, ...], headroom: str, result: Result) -> None:
    """Measure TARGETS (or read a finished RUN_DIR) and write a commented policy that they pass, with head-room."""
    from datetime import UTC, datetime

    from onnxpress.errors import UsageError, did_you_mean
    from onnxpress.gate import initial, reader
    from onnxpress.units import parse

    room = parse(headroom, "ratio")
    if evidence.finished:
        from onnxpress.report.report import Report

        report = Report.load(evidence.targets[0])
    else:
        from onnxpress.gate.measure import measure_files, measure_times

        plan = _plan(evidence, None, ("file", "session", "evaluation", "bench"))
        report = measure_times(plan, measure_files(plan, result.progress), result.progress)
    for name in variants:
        if name not in report.candidates:
            raise UsageError(f"variant {name!r}: is not there.{did_you_mean(name, report.candidates)}")
    text = initial.policy(report, variants or report.candidates, headroom=room, today=datetime.now(UTC).date())
    result.outputs.write(output, text)
    count = len(reader.read(result.outputs.stage(output)).rules)
    document = {"schema": "onnxpress.step/1", "step": "gate init", "path": str(output), "rules": count}
    result.show(
        [f"{output}: {count} rules. Read it, tighten what matters, then run `compress gate` with it."], document
    )


def _judged(
    evidence: Evidence,
    policy: Policy,
    judged: Callable[[Report, dict[Need, str]], Report],
    *,
    static: bool,
    keep_going: bool,
    result: Result,
) -> Report:
    """Return the report with its checks, measured as far as the rules need it."""
    from onnxpress.report.report import Report

    untimed: dict[Need, str] = {"bench": "--static times nothing", "cost": "--static times nothing"} if static else {}
    if evidence.finished:
        return judged(Report.load(evidence.targets[0]), untimed)
    from onnxpress.gate.measure import measure_files, measure_times

    plan = _plan(evidence, policy, tuple(policy.needs()))
    if static and plan.data is None:
        untimed["evaluation"] = "--static without --data evaluates nothing"
    report = measure_files(plan, result.progress)
    if static:
        return judged(report, untimed)
    why = "not timed, because a cheaper rule failed already: --keep-going times all the same"
    early = judged(report, {"bench": why, "cost": why})
    if early.verdict == "fail" and not keep_going:
        return early
    return judged(measure_times(plan, report, result.progress), {})


def _rewrite(report: Report, folder: Path) -> None:
    """Write the verdict into the run folder, whose report somebody may keep; where that cannot be, say so."""
    from onnxpress.errors import OutputError
    from onnxpress.printing import one_line
    from onnxpress.report import files

    try:
        files.write(report, folder)
    except OutputError as error:
        warning = f"warning: the report in {folder} still has the verdict that it had before: {error}"
        click.echo(one_line(warning), err=True)


def _plan(evidence: Evidence, policy: Policy | None, needs: tuple[Need, ...]) -> Plan:
    """Turn the command line into what is measured."""
    from onnxpress.bench.options import BenchOptions
    from onnxpress.cost.options import CostOptions
    from onnxpress.data import dataset
    from onnxpress.errors import UsageError
    from onnxpress.evaluation.evaluate import check_metric
    from onnxpress.gate.measure import Plan
    from onnxpress.validation import options

    check_metric(evidence.metric)
    for path in evidence.targets:
        if not path.exists():
            raise UsageError(f"gate {path}: no such file. Name models, or a run folder that `compress run` wrote.")
    opened = functools.partial(dataset, preprocessing=evidence.preprocessing)
    stated = evidence.baseline or (Path(policy.baseline_model) if policy and policy.baseline_model else None)
    reference = stated or evidence.targets[0]
    models = name_models((reference, *(path for path in evidence.targets if path != reference)))
    if len(models) == 1:
        raise UsageError(
            f"gate {reference}: there is nothing to compare it with. Name the float model with --baseline, or with "
            "`baseline: {model: …}` in the policy."
        )
    rules = policy.every_rule() if policy else []
    instances = tuple(dict.fromkeys(rule.instance for rule in rules if rule.instance))
    rate = "cost" in needs or any(rule.name == "throughput" for rule in rules)
    values = {
        "providers": [evidence.provider],
        "threads": evidence.threads,
        "budget": evidence.budget,
        "scenarios": ["single", "offline"] if rate else ["single"],
        "aa": True,
    }
    cost = options(CostOptions, {"instances": instances or None})
    if "cost" in needs:
        from onnxpress.cost.cost import check

        check(cost, models)
    return Plan(
        models=models,
        baseline=next(iter(models)),
        needs=needs,
        data=opened(evidence.data, limit=evidence.samples) if evidence.data else None,
        metric=evidence.metric,
        calibration=opened(evidence.calibration) if evidence.calibration else None,
        bench=options(BenchOptions, values),
        cost=cost,
        regressions=policy.regressions() if policy else (),
    )
