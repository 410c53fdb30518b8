"""``vheatbench segment``: train UperNet over a backbone, and its mIoU on a folder in ADE20K's format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vheatbench.cli import dense
from vheatbench.cli.parse import check_choice
from vheatbench.cli.processes import user_errors_on_rank0
from vheatbench.cli.processes_job import submit_processes
from vheatbench.errors import UserError

if TYPE_CHECKING:
    from vheatbench.run.distributed import Group
    from vheatbench.studies.dense.task import About

IGNORE_HELP = "Label that counts for nothing, a number after --reduce-zero-label; 255 stays 255 in that"
Data = Annotated[Path, typer.Option(help="Folder with images/SPLIT/ and annotations/SPLIT/.")]

app = typer.Typer(
    help="Segmentation: UperNet over any backbone, on a folder in ADE20K's format.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("train")
def train(
    *,
    model: dense.BackboneName = "vheat-t",
    data: Data,
    split: dense.TrainSplit = "training",
    classes: Annotated[
        int, typer.Option(min=1, help="Of the label maps, without the labels that count for nothing.")
    ] = 150,
    reduce_zero_label: Annotated[
        bool,
        typer.Option(
            help="Label 0 counts for nothing and 1 is the first class, as in ADE20K; else 0 is the first class."
        ),
    ] = True,
    ignore_index: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help=IGNORE_HELP + "; default 255 where there are at most 255 classes."),
    ] = None,
    schedule: Annotated[str, typer.Option(help="160k or 80k steps.")] = "160k",
    backbone_weights: dense.BackboneWeights = None,
    use: dense.Use = "model",
    rule: dense.Rule = "zeropad",
    trust_pickle: dense.TrustPickle = False,
    batch: Annotated[
        int, typer.Option(min=2, help="Crops of a step, over all processes; batch norms need two in each.")
    ] = 16,
    lr: dense.LearningRate = 6e-5,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of the schedule's.")] = None,
    crop: Annotated[int, typer.Option(min=32, help="Side of the crops.")] = 512,
    channels: Annotated[int, typer.Option(min=1, help="Of the decoder.")] = 512,
    drop_path: dense.DropPath = None,
    dtype: dense.Precision = "float32",
    device: dense.Device = "auto",
    workers: dense.Workers = 0,
    save_every: dense.SaveEvery = 1000,
    seed: dense.Seed = 0,
    out: dense.Out = Path("segment"),
    resume: dense.Resume = False,
    quiet: dense.Quiet = False,
    slurm: dense.Slurm = None,
) -> None:
    """Train UperNet as the papers do: AdamW, rate 6e-5, decay 0.01, 1500 steps of warm-up, linear fall to 0.

    Several GPUs: torchrun --nproc-per-node 8 -m vheatbench segment train ...
    """
    with user_errors_on_rank0():
        check_choice("--schedule", schedule, ("160k", "80k"))

    def plan(group: Group) -> dense.Training:
        from vheatbench.studies.dense.ade import read_ade
        from vheatbench.studies.dense.labels import Numbering
        from vheatbench.studies.dense.segmentation import SEGMENTATION, about_segmenter, segmentation_schedule

        if batch < 2 * group.size:
            raise UserError(f"--batch {batch}: batch norms need two crops in each of {group.size} processes")
        folder = read_ade(data, split, Numbering.of(classes, reduce_zero_label, ignore_index))
        about = about_segmenter(model, folder, schedule, crop, channels, drop_path)
        return dense.Training(SEGMENTATION, folder, about, segmentation_schedule(schedule, batch, lr, steps, seed))

    submit_processes(slurm)
    dense.train(
        plan, lr=lr, backbone_weights=backbone_weights, use=use, rule=rule, trust_pickle=trust_pickle, dtype=dtype,
        device=device, workers=workers, save_every=save_every, out=out, resume=resume, quiet=quiet,
    )  # fmt: skip


@app.command("eval")
def evaluate(
    *,
    weights: Annotated[Path, typer.Option(help="What `vheatbench segment train` wrote.")],
    data: Data,
    split: dense.TestSplit = "validation",
    test: Annotated[
        str,
        typer.Option(
            help="slide: in overlapping windows of the training's crops, as vHeat's; whole: at once, as Swin's."
        ),
    ] = "slide",
    reduce_zero_label: Annotated[
        bool | None,
        typer.Option(
            "--reduce-zero-label/--no-reduce-zero-label", help="Of these label maps; default as in the training."
        ),
    ] = None,
    ignore_index: Annotated[
        int | None, typer.Option(min=0, max=65535, help=IGNORE_HELP + "; default as in the training.")
    ] = None,
    multi_scale: Annotated[
        bool,
        typer.Option(
            "--multi-scale", help="Mean over six scales from 0.5 to 1.75 and mirror images; twelve times the work."
        ),
    ] = False,
    device: dense.Device = "auto",
    results: dense.Results = Path("results"),
    json_: dense.Json = False,
    quiet: dense.Quiet = False,
    slurm: dense.Slurm = None,
) -> None:
    """Mean intersection over union; every image is answered once, by whichever process."""
    with user_errors_on_rank0():
        check_choice("--test", test, ("slide", "whole"))

    def plan(about: About) -> dense.Test:
        from vheatbench.studies.dense.ade import read_ade
        from vheatbench.studies.dense.labels import Numbering
        from vheatbench.studies.dense.segmentation import SCALES, SEGMENTATION, evaluate_segmenter

        numbering = Numbering.trained(about)
        asked = {"reduce_zero_label": reduce_zero_label, "ignore_index": ignore_index}
        given: dict[str, Any] = {
            name: value for name, value in asked.items() if value not in (None, numbering.settings[name])
        }
        folder = read_ade(data, split, replace(numbering, **given))
        side = about["crop"]
        scales = SCALES if multi_scale else (1.0,)
        window = side if test == "slide" else None
        return dense.Test(
            SEGMENTATION,
            folder,
            lambda model, group, on_progress, kept: evaluate_segmenter(
                model, folder, group, side, scales, multi_scale, on_progress, window, kept
            ),
            {"test": test, **({"scales": "multi"} if multi_scale else {}), **given},
        )

    submit_processes(slurm, results)
    dense.evaluate(
        "upernet", plan, weights=weights, data=data, device=device, results=results, json_=json_, quiet=quiet
    )
