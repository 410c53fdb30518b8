"""``vheatbench detect``: train Mask R-CNN over a backbone, and its mAP on a folder in COCO's format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vheatbench.cli.dense import (
    StepLines,
    answers_kept,
    beginning_of,
    checkpoint_kept,
    chosen,
    fresh,
    image_lines,
    keeping,
    positive,
    precision,
    show_evaluation,
    sides,
    tell,
    working,
)
from vheatbench.cli.folders import check_writable
from vheatbench.cli.output import command_line
from vheatbench.cli.processes import one_voice

if TYPE_CHECKING:
    from torchvision.models.detection import MaskRCNN

    from vheatbench.studies.dense.detection.coco import CocoFolder
    from vheatbench.studies.dense.files import TrainedFile
    from vheatbench.studies.dense.fit import Schedule
    from vheatbench.subjects.backbone import Beginning

app = typer.Typer(
    help="Detection: Mask R-CNN over any backbone, on a folder in COCO's format.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("train")
def train(
    model: str = typer.Option("vheat-t", help="Backbone: an alias or a timm name with maps at strides 4 to 32."),
    data: Path = typer.Option(..., help="Folder with annotations/instances_SPLIT.json and the images in SPLIT/."),
    split: str = typer.Option("train2017", help="Part of the data to learn from."),
    schedule: str = typer.Option("1x", help="1x: 12 epochs at 800 pixels; 3x: 36 epochs at 480 to 800."),
    backbone_weights: Path | None = typer.Option(
        None, help="Classification checkpoint to begin with; else random weights."
    ),
    use: str = typer.Option("model", help="Which set of weights, where the file has both: model, model_ema."),
    rule: str = typer.Option("zeropad", help="How vHeat's frequency embeddings are resized: bicubic, zeropad."),
    trust_pickle: bool = typer.Option(
        False, "--trust-pickle", help="Run the code that the checkpoint may contain: official files need it."
    ),
    batch: int = typer.Option(16, min=1, help="Images of a step, over all processes."),
    lr: float = typer.Option(1e-4, help="Learning rate after the warm-up."),
    steps: int | None = typer.Option(None, min=1, help="Instead of the schedule's: milestones move with it."),
    side: str | None = typer.Option(
        None, help="Shorter sides of training images, by commas, instead of the schedule's."
    ),
    max_side: int = typer.Option(1333, min=32, help="Most that the longer side may have."),
    anchors: str = typer.Option("32,64,128,256,512", help="Sides of the anchors on the five levels, by commas."),
    drop_path: float | None = typer.Option(
        None, min=0, max=0.99, help="Stochastic depth of the last block, instead of the published training's."
    ),
    dtype: str = typer.Option("float32", help="float32, or bfloat16 by autocast."),
    device: str = typer.Option("auto", help="auto, cpu or cuda."),
    workers: int = typer.Option(0, min=0, help="Processes that read images, per process that trains."),
    save_every: int = typer.Option(1000, min=1, help="Steps after which what is done is on disk."),
    seed: int = typer.Option(0, min=0, max=2**31 - 1, help="Of weights, order and augmentation."),
    out: Path = typer.Option(Path("detect"), help="Folder for the checkpoint and the weights."),
    resume: bool = typer.Option(False, "--resume", help="Continue the training in --out."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress."),
) -> None:
    """Train Mask R-CNN as the papers do: AdamW, rate 1e-4, decay 0.05, a tenth of the rate at two milestones.

    Several GPUs: torchrun --nproc-per-node 8 -m vheatbench detect train ...
    """
    with one_voice():
        chosen("--schedule", schedule, ("1x", "3x"))
        positive("--lr", lr)
        anchor_sides = sides(anchors, "--anchors") or ()
        if len(anchor_sides) != 5:
            from vheatbench.errors import UserError

            raise UserError(f"--anchors {anchors!r}: give five sides, one for each level")
        autocast = precision(dtype)
        fresh(out, resume)
    with working(device) as group:
        from vheatbench.studies.dense.detection.coco import read_coco
        from vheatbench.studies.dense.detection.train import (
            SIDES,
            about_of,
            detection_schedule,
            train_detector,
        )

        def plan() -> tuple[CocoFolder, dict[str, Any], Schedule, Beginning | None]:
            folder = read_coco(data, split)
            wanted = tuple(sorted(sides(side, "--side") or SIDES[schedule]))
            about = about_of(model, folder, schedule, wanted, max_side, anchor_sides, drop_path)
            images = len(folder.ids_to_learn_from)
            steps_of = detection_schedule(schedule, images, batch, lr, steps, seed)
            check_writable(out, "--out")
            return folder, about, steps_of, beginning_of(backbone_weights, use, rule, trust_pickle)

        folder, about, steps_of, beginning = group.together(plan)
        tell([str(folder.turned)], group)
        progress = StepLines(quiet or not group.is_main)
        with keeping(lambda: checkpoint_kept(out, progress), group):
            path = train_detector(
                folder,
                about,
                steps_of,
                group,
                out,
                model.replace("-", "_"),
                beginning=beginning,
                resume=resume,
                workers=workers,
                autocast=autocast,
                save_every=save_every,
                told=progress,
            )
        main = group.is_main
    if main:
        print(path)


@app.command("eval")
def evaluate(
    weights: Path = typer.Option(..., help="What `vheatbench detect train` wrote."),
    data: Path = typer.Option(..., help="Folder with annotations/instances_SPLIT.json and the images in SPLIT/."),
    split: str = typer.Option("val2017", help="Part of the data to answer."),
    device: str = typer.Option("auto", help="auto, cpu or cuda."),
    results: Path = typer.Option(Path("results"), help="Folder for the run's file."),
    json_: bool = typer.Option(False, "--json", help="Print the record as JSON on stdout."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress."),
) -> None:
    """Box and mask mAP by pycocotools; every image is answered once, by whichever process."""
    path: Path | None = None
    with working(device) as group:
        from vheatbench.studies.dense.answers import Answers
        from vheatbench.studies.dense.detection.coco import check_testable, read_coco
        from vheatbench.studies.dense.detection.evaluate import evaluate_detector
        from vheatbench.studies.dense.detection.train import build_detector
        from vheatbench.studies.dense.files import read_trained
        from vheatbench.studies.dense.record import Evaluation, write_evaluation
        from vheatbench.text import utc_now

        def plan() -> tuple[TrainedFile, CocoFolder, MaskRCNN, Answers]:
            trained = read_trained(weights, "maskrcnn")
            folder = read_coco(data, split)
            check_testable(folder, trained.about["categories"])
            model = build_detector(trained.about)
            trained.load_into(model)
            place = (folder.fingerprint, str(folder.images.resolve()), group.device.type)
            kept = Answers.of(results, "detect-eval", trained.sha256, *place)
            check_writable(results, "--results")
            return trained, folder, model.eval().to(group.device), kept

        started = utc_now()
        trained, folder, model, kept = group.together(plan)
        tell([str(folder.turned)], group)
        with keeping(lambda: answers_kept(kept), group):
            result = evaluate_detector(model, folder, group, image_lines(quiet or not group.is_main), kept)
        if group.is_main:
            done = Evaluation(
                trained=trained,
                subject=f"maskrcnn:{trained.about['model']}",
                resolution=(max(trained.about["sides"]), trained.about["max_side"]),
                device=group.device.type,
                data=folder.fingerprint,
                data_name=data.resolve().name,
                scores=result.scores,
                how=f"pycocotools on {result.images} images, {result.detections} detections",
                images=result.images,
                model_s=result.model_s,
                data_facts={"turned": str(folder.turned)} if str(folder.turned) else {},
            )
            path = write_evaluation(done, results, "detect-eval", command_line(), started)
            kept.forget()
    if path is not None:
        show_evaluation(path, json_)
