"""``vheatbench detect``: train Mask R-CNN over a backbone, and its mAP on a folder in COCO's format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vheatbench.cli import dense
from vheatbench.cli.parse import check_choice
from vheatbench.cli.processes import user_errors_on_rank0
from vheatbench.cli.processes_job import submit_processes
from vheatbench.errors import UserError

if TYPE_CHECKING:
    from vheatbench.run.distributed import Group
    from vheatbench.studies.dense.task import About

Data = Annotated[Path, typer.Option(help="Folder with annotations/instances_SPLIT.json and the images in SPLIT/.")]

app = typer.Typer(
    help="Detection: Mask R-CNN over any backbone, on a folder in COCO's format.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("train")
def train(
    *,
    model: dense.BackboneName = "vheat-t",
    data: Data,
    split: dense.TrainSplit = "train2017",
    schedule: Annotated[str, typer.Option(help="1x: 12 epochs at 800 pixels; 3x: 36 epochs at 480 to 800.")] = "1x",
    backbone_weights: dense.BackboneWeights = None,
    use: dense.Use = "model",
    rule: dense.Rule = "zeropad",
    trust_pickle: dense.TrustPickle = False,
    batch: Annotated[int, typer.Option(min=1, help="Images of a step, over all processes.")] = 16,
    lr: dense.LearningRate = 1e-4,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Instead of the schedule's: milestones move with it.")
    ] = None,
    side: Annotated[
        str | None, typer.Option(help="Shorter sides of training images, by commas, instead of the schedule's.")
    ] = None,
    max_side: Annotated[int, typer.Option(min=32, help="Most that the longer side may have.")] = 1333,
    anchors: Annotated[
        str, typer.Option(help="Sides of the anchors on the five levels, by commas.")
    ] = "32,64,128,256,512",
    drop_path: dense.DropPath = None,
    dtype: dense.Precision = "float32",
    device: dense.Device = "auto",
    workers: dense.Workers = 0,
    save_every: dense.SaveEvery = 1000,
    seed: dense.Seed = 0,
    out: dense.Out = Path("detect"),
    resume: dense.Resume = False,
    quiet: dense.Quiet = False,
    slurm: dense.Slurm = None,
) -> None:
    """Train Mask R-CNN as the papers do: AdamW, rate 1e-4, decay 0.05, a tenth of the rate at two milestones.

    Several GPUs: torchrun --nproc-per-node 8 -m vheatbench detect train ...
    """
    with user_errors_on_rank0():
        check_choice("--schedule", schedule, ("1x", "3x"))
        anchor_sides = _sides(anchors, "--anchors")
        if len(anchor_sides) != 5:
            raise UserError(f"--anchors {anchors!r}: give five sides, one for each level")
        sides = None if side is None else _sides(side, "--side")

    def plan(group: Group) -> dense.Training:
        from vheatbench.studies.dense.coco import read_coco
        from vheatbench.studies.dense.detection import DETECTION, SIDES, about_detector, detection_schedule

        folder = read_coco(data, split)
        wanted = tuple(sorted(sides or SIDES[schedule]))
        about = about_detector(model, folder, schedule, wanted, max_side, anchor_sides, drop_path)
        images = len(folder.ids_to_learn_from)
        return dense.Training(DETECTION, folder, about, detection_schedule(schedule, images, batch, lr, steps, seed))

    submit_processes(slurm)
    dense.train(
        plan, lr=lr, backbone_weights=backbone_weights, use=use, rule=rule, trust_pickle=trust_pickle, dtype=dtype,
        device=device, workers=workers, save_every=save_every, out=out, resume=resume, quiet=quiet,
    )  # fmt: skip


@app.command("eval")
def evaluate(
    *,
    weights: Annotated[Path, typer.Option(help="What `vheatbench detect train` wrote.")],
    data: Data,
    split: dense.TestSplit = "val2017",
    device: dense.Device = "auto",
    results: dense.Results = Path("results"),
    json_: dense.Json = False,
    quiet: dense.Quiet = False,
    slurm: dense.Slurm = None,
) -> None:
    """Box and mask mAP by pycocotools; every image is answered once, by whichever process."""

    def plan(about: About) -> dense.Test:
        from vheatbench.studies.dense.coco import check_testable, read_coco
        from vheatbench.studies.dense.detection import DETECTION, evaluate_detector

        folder = read_coco(data, split)
        check_testable(folder, about["categories"])
        return dense.Test(
            DETECTION,
            folder,
            lambda model, group, on_progress, kept: evaluate_detector(model, folder, group, on_progress, kept),
        )

    submit_processes(slurm, results)
    dense.evaluate(
        "maskrcnn", plan, weights=weights, data=data, device=device, results=results, json_=json_, quiet=quiet
    )


def _sides(text: str, option: str) -> tuple[int, ...]:
    """``8,16,32`` to numbers. Raises UserError."""
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or min(values) < 1:
        raise UserError(f"{option} {text!r}: give whole numbers of pixels by commas")
    return values
