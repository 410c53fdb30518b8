"""``vheatbench ab``: two versions of the code, or two models, measured in turns on this machine."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from vheatbench.cli import exits
from vheatbench.cli.options import DEVICE_OR_INDEX, JSON, OLD, QUIET, results_option
from vheatbench.cli.output import command_line
from vheatbench.errors import StoreError, UserError

if TYPE_CHECKING:
    from vheatbench.ab.request import Request
    from vheatbench.ab.session import EndedError, Output, Session
    from vheatbench.case import Case
    from vheatbench.store.read import Run
    from vheatbench.suites import Suite
    from vheatbench.verdict.noise_floor import NoiseFloor
    from vheatbench.verdict.rule import Looks

ALPHA = 0.01
"""Probability of an error that all looks at a case share."""
RESUMED = {"resume", "out", "verdict", "markdown", "json_", "quiet", "everything"}
"""Options that may stand beside ``--resume``: they do not change what is measured."""


def ab(
    context: typer.Context,
    base: str | None = typer.Option(None, help="The version that the head is compared with: a branch, tag or commit."),
    head: str | None = typer.Option(None, help="The version in question; '.', the default: the working tree as it is."),
    base_model: str | None = typer.Option(None, help="Instead of versions: is HEAD_MODEL faster than this model?"),
    head_model: str | None = typer.Option(None, help="The model in question."),
    aa: bool = typer.Option(False, "--aa", help="The same code on both sides: measure and keep this machine's noise."),
    suite: str = typer.Option("smoke", help="Name of a suite, or the path of a YAML file."),
    model: str | None = typer.Option(None, help="Instead of the suite's subjects, separated by commas."),
    resolution: str | None = typer.Option(None, help="For example 224,512 or 480x640 (height x width)."),
    grid: str | None = typer.Option(None, help="Of operators, in tokens: for example 14,56."),
    batch: str | None = typer.Option(None, help="Images per step, by commas."),
    dtype: str | None = typer.Option(None, help="float32, tf32, bfloat16, float16, int8, by commas."),
    mode: str | None = typer.Option(None, help="infer, forward, forward_backward, train, by commas."),
    engine: str | None = typer.Option(
        None, help="How models are run: eager, compiled, onnxruntime, openvino, ..., by commas."
    ),
    compile: str | None = typer.Option(None, help="The older name of some engines: true is compiled."),
    threads: int | None = typer.Option(None, help="CPU threads of a worker."),
    timeout: float | None = typer.Option(None, help="Seconds that a case may take."),
    turns: bool | None = typer.Option(
        None, "--turns/--no-turns", help="Whether both sides of a round live at once and sample in turns."
    ),
    burst: float = typer.Option(3.0, help="Seconds of sampling in a round, at most; the suite may say less."),
    device: str = DEVICE_OR_INDEX,
    rounds: str | None = typer.Option(
        None, help="After how many rounds the answer is asked for (10,15,20; 1 where only exact metrics are compared)."
    ),
    margin: list[str] = typer.Option(
        ["5%"], help="Worsening that is tolerated; of one metric: --margin peak_memory_bytes=20%. Repeatable."
    ),
    metric: str | None = typer.Option(None, help="Compare only these metrics, by commas (two models: latency_s)."),
    location: str = typer.Option("p25", help="What stands for a round: p25, min, p10 or median of its samples."),
    seed: int = typer.Option(0, help="Of the order."),
    resume: str | None = typer.Option(None, help="Continue an interrupted comparison: its id, or 'latest'."),
    out: Path = results_option("Folder for the two runs and for the measured noise.", OLD),
    verdict: Path = typer.Option(Path("verdict.json"), help="File for the verdict."),
    markdown: str | None = typer.Option(None, help="Also write it as markdown to this file; - for stdout."),
    everything: bool = typer.Option(False, "--all", help="Also show what did not change."),
    json_: bool = JSON,
    quiet: bool = QUIET,
) -> None:
    """Measure two sides in turns, as many rounds as it takes, and say what got worse.

    Ends 0: nothing worse; 3: regressed; 4: inconclusive; 5: not comparable; 6: a side could not be measured.
    """
    from vheatbench.ab.session import Output, settings_of
    from vheatbench.cli.compare import parse_margins
    from vheatbench.cli.parse import booleans, comma_list, numbers_or_words

    if json_ and markdown == "-":
        raise UserError("--json and --markdown - both want stdout: name a file for one of them")
    output = Output(out, verdict, markdown, json_, quiet, everything)
    if resume is not None:
        given = [name for name in context.params if name not in RESUMED and _given(context, name)]
        if given:
            raise UserError(f"--resume continues a comparison as it was planned: leave {_option(given[0])} out")
        _resume(resume, output)
        return
    metrics = comma_list(metric) or (["latency_s"] if base_model is not None else None)
    margins = parse_margins(margin)
    _check_metrics("--metric", metrics or ())
    _check_metrics("--margin", filter(None, margins))
    request = _request(base, head, base_model, head_model, aa).model_copy(
        update={
            "margins": margins,
            "metrics": tuple(metrics) if metrics is not None else None,
            "location": location,
        }
    )
    if model is not None and base_model is not None:
        raise UserError("--base-model and --head-model say what is measured: leave --model out")
    overrides = {
        "subjects": [base_model, head_model] if base_model is not None else comma_list(model),
        "resolution": comma_list(resolution),
        "grid": comma_list(grid),
        "batch": numbers_or_words(batch),
        "dtype": comma_list(dtype),
        "mode": comma_list(mode),
        "engine": comma_list(engine),
        "compile": booleans(compile, "--compile", ("freezing", "cudagraphs")),
        "threads": threads,
        "timeout_s": timeout,
        "turns": turns,
    }
    overrides = {key: value for key, value in overrides.items() if value is not None}
    looks = _looks(rounds, request)
    settings_of(request, looks)
    kind, request = _on_device(request, device)
    chosen = _suite(suite, kind, overrides, burst)
    _begin(request, chosen, kind, looks, seed, output)


def _check_metrics(option: str, names: Iterable[str]) -> None:
    from vheatbench.metrics import with_role

    known = sorted(info.name for info in with_role("timed"))
    for name in names:
        if name not in known:
            raise UserError(f"{option} {name!r}: no case has it; there are: {', '.join(known)}")


def _given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _option(name: str) -> str:
    return f"--{name.rstrip('_').replace('_', '-')}"


def _request(base: str | None, head: str | None, base_model: str | None, head_model: str | None, aa: bool) -> Request:
    """Which kind of comparison is meant."""
    from vheatbench.ab.request import Request

    if aa:
        if base_model or head_model or (head is not None and head != base):
            raise UserError("--aa compares code with itself: give --base for a version, or nothing for the present")
        return Request(base=base, head=base, aa=True)
    if base_model is not None or head_model is not None:
        if base_model is None or head_model is None:
            raise UserError("two models are compared: give both --base-model and --head-model")
        if base is not None or head is not None:
            raise UserError("either versions (--base, --head) or models (--base-model, --head-model) are compared")
        if base_model == head_model:
            raise UserError(f"{base_model} is on both sides: the noise of this machine is measured by --aa")
        return Request(base_model=base_model, head_model=head_model)
    if base is None:
        raise UserError("what is compared? give --base REF, or --base-model and --head-model, or --aa")
    return Request(base=base, head=head or ".")


def _looks(text: str | None, request: Request) -> Looks:
    from vheatbench.metrics import names
    from vheatbench.verdict.rule import MIN_ROUNDS, Looks

    exact = request.metrics is not None and set(request.metrics) <= set(names("portable"))
    if text is not None:
        words = [word.strip() for word in text.split(",")]
        if not all(re.fullmatch(r"[0-9]{1,3}", word) for word in words):
            raise UserError(f"--rounds {text!r}: give growing numbers of rounds, for example 10,15,20")
        looks = Looks(tuple(map(int, words)), ALPHA)
    else:
        looks = Looks((1,), ALPHA) if exact and not request.aa else Looks(alpha=ALPHA)
    if request.aa and looks.rounds[0] < MIN_ROUNDS:
        raise UserError(f"--aa needs {MIN_ROUNDS} rounds or more: fewer never give an interval")
    if looks.blind and not exact and not request.aa:
        blind = ", ".join(map(str, looks.blind))
        print(f"! {blind} rounds are too few to judge a timing: only exact metrics will be decided", file=sys.stderr)
    return looks


def _on_device(request: Request, text: str) -> tuple[str, Request]:
    """``cpu`` or ``cuda``, and the request for that device."""
    from vheatbench.cli.parse import device_kind
    from vheatbench.cli.suite_plan import likely_kind
    from vheatbench.run.runner import inspect_machine

    wanted, index = device_kind(text)
    kind = likely_kind() if wanted == "auto" else wanted
    if kind == "cuda":
        there = inspect_machine([]).cuda_devices
        if there == 0 and wanted == "auto":
            print("torch sees no CUDA device (is it a CPU build?): measuring on the CPU", file=sys.stderr)
            kind = "cpu"
        elif there <= (index or 0):
            raise UserError(f"GPU {index or 0} was asked for, but torch sees {there} CUDA devices here")
    return kind, request.model_copy(update={"device": f"cuda:{index or 0}" if kind == "cuda" else "cpu"})


def _suite(name: str, kind: str, overrides: dict[str, Any], burst: float) -> Suite:
    """The suite without ceilings and cross-checks, with short rounds: precision comes from their number."""
    from vheatbench.suite_file import load_suite

    if not burst > 0:
        raise UserError(f"--burst {burst:g}: give the seconds of sampling in a round, for example 3")
    suite = load_suite(name, kind, {**overrides, "ceilings": False, "fvcore": False})  # type: ignore[arg-type]
    ceiling = min(suite.policy.ceiling_s, burst)
    return suite.model_copy(update={"policy": suite.policy.model_copy(update={"ceiling_s": ceiling})})


def _begin(request: Request, suite: Suite, kind: str, looks: Looks, seed: int, output: Output) -> None:

    from vheatbench.ab.rounds import Pair
    from vheatbench.ab.session import Session, rounds_for

    plan = suite.plan(kind)  # type: ignore[arg-type]
    if request.base_model is not None:
        _check_models(plan)
        of_base = [case for case in plan if case.subject == request.base_model]
        pairs = [Pair(case, case.model_copy(update={"subject": request.head_model})) for case in of_base]
    else:
        pairs = [Pair(case, case) for case in plan]
    from vheatbench.run.recording import new_header

    header = new_header(
        suite.name,
        suite.description,
        command_line(),
        {},
        policy=suite.policy.model_dump(mode="json"),
        reference=suite.reference.model_dump(mode="json") if suite.reference else {},
    )
    _carry_out(Session(request, header, looks, rounds_for(request, pairs, looks, seed), output))


def _check_models(plan: list[Case]) -> None:
    """Two models are built by this interpreter, which can say at once that there is no such model."""
    from vheatbench.run.runner import inspect_machine

    problems = inspect_machine(list({case.subject: case for case in plan}.values())).problems
    if problems:
        raise UserError(problems[0])


def _resume(name: str, output: Output) -> None:
    from vheatbench.ab.request import Request, find_comparison
    from vheatbench.ab.rounds import Pair
    from vheatbench.ab.session import Session, rounds_for
    from vheatbench.verdict.rule import Looks

    begun = find_comparison(name, output.out)
    header = begun["base"].header
    pairing = header.pairing
    request = Request.model_validate(pairing["request"])
    looks = Looks(tuple(pairing["looks"]), pairing["alpha"])
    pairs = [Pair(one, other) for one, other in zip(header.plan, begun["head"].header.plan, strict=True)]
    rounds = rounds_for(request, pairs, looks, pairing["seed"])
    common = header.model_copy(update={"run_id": pairing["id"]})
    _carry_out(Session(request, common, looks, rounds, output, begun))


def _carry_out(session: Session) -> None:
    """Measure what is due, print the answer, and end with its exit code."""
    from vheatbench.ab.session import EndedError
    from vheatbench.cli.compare import EXITS, present
    from vheatbench.present.progress import display

    output = session.output
    try:
        runs = session.measure(display(output.quiet))
        if session.request.aa:
            _keep_floor(session.noise_floor(runs), runs["head"], output)
            code = exits.OK
        else:
            comparison = session.compare(runs)
            code = EXITS[comparison.outcome]
            present(
                comparison,
                code,
                json_=output.json_,
                markdown=output.markdown,
                verdict=output.verdict,
                everything=output.everything,
            )
    except EndedError as error:
        _end(error, EXITS[error.outcome], output)
    for side, run in runs.items():
        print(f"{side}: {run.path}", file=sys.stderr)
    if code:
        raise typer.Exit(code)


def _keep_floor(floor: NoiseFloor, run: Run, output: Output) -> None:
    from vheatbench.cli.output import print_json
    from vheatbench.verdict.noise_floor import write_floor

    path = write_floor(output.out, floor)
    if output.json_:
        print_json(floor.model_dump())
    else:
        print(f"Noise of {run.device_name}: identical code against itself, {floor.rounds} rounds per comparison")
        for metric, found in floor.metrics.items():
            print(
                f"{metric}: 99 % of {found.comparisons} comparisons come out within {found.margin:.2%}; "
                f"with that as margin {found.false_alarms:.2%} end 'regressed'"
            )
    print(f"kept in {path}: a smaller --margin is refused here from now on", file=sys.stderr)


def _end(error: EndedError, code: int, output: Output) -> NoReturn:
    """End without a comparison; the file for the verdict says why."""
    from vheatbench.cli.output import print_json
    from vheatbench.files import write_file

    verdict = "incomparable" if error.outcome == "incomparable" else "inconclusive"
    document = {"verdict": verdict, "outcome": error.outcome, "reasons": [str(error)], "exit_code": code}
    words = f"### {error.outcome}\n\n- {error}\n"
    with contextlib.suppress(UserError, StoreError):  # the exit code says it too
        write_file(output.verdict, json.dumps(document, indent=2) + "\n")
        if output.markdown not in (None, "-"):
            write_file(str(output.markdown), words)
    if output.json_:
        print_json(document)
    elif output.markdown == "-":
        print(words, end="")
    print(f"vheatbench: {error}", file=sys.stderr)
    raise typer.Exit(code)
