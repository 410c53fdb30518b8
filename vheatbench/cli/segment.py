"""``vheatbench segment``: train UperNet over a backbone, and its mIoU on a folder in ADE20K's format."""

from __future__ import annotations

from dataclasses import replace
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
    tell,
    working,
)
from vheatbench.cli.folders import check_writable
from vheatbench.cli.output import command_line
from vheatbench.cli.processes import one_voice

if TYPE_CHECKING:
    from vheatbench.run.distributed import Group
    from vheatbench.studies.dense.files import TrainedFile
    from vheatbench.studies.dense.segmentation.ade import AdeFolder
    from vheatbench.subjects.backbone import Beginning
    from vheatbench.subjects.segmenter import UperNet

IGNORE_HELP = "Label that counts for nothing, a number after --reduce-zero-label; 255 stays 255 in that"

app = typer.Typer(
    help="Segmentation: UperNet over any backbone, on a folder in ADE20K's format.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("train")
def train(
    model: str = typer.Option("vheat-t", help="Backbone: an alias or a timm name with maps at strides 4 to 32."),
    data: Path = typer.Option(..., help="Folder with images/SPLIT/ and annotations/SPLIT/."),
    split: str = typer.Option("training", help="Part of the data to learn from."),
    classes: int = typer.Option(150, min=1, help="Of the label maps, without the labels that count for nothing."),
    reduce_zero_label: bool = typer.Option(
        True,
        help="Label 0 counts for nothing and 1 is the first class, as in ADE20K; else 0 is the first class.",
    ),
    ignore_index: int | None = typer.Option(
        None, min=0, max=65535, help=IGNORE_HELP + "; default 255 where there are at most 255 classes."
    ),
    schedule: str = typer.Option("160k", help="160k or 80k steps."),
    backbone_weights: Path | None = typer.Option(
        None, help="Classification checkpoint to begin with; else random weights."
    ),
    use: str = typer.Option("model", help="Which set of weights, where the file has both: model, model_ema."),
    rule: str = typer.Option("zeropad", help="How vHeat's frequency embeddings are resized: bicubic, zeropad."),
    trust_pickle: bool = typer.Option(
        False, "--trust-pickle", help="Run the code that the checkpoint may contain: official files need it."
    ),
    batch: int = typer.Option(16, min=2, help="Crops of a step, over all processes; batch norms need two in each."),
    lr: float = typer.Option(6e-5, help="Learning rate after the warm-up."),
    steps: int | None = typer.Option(None, min=1, help="Instead of the schedule's."),
    crop: int = typer.Option(512, min=32, help="Side of the crops."),
    channels: int = typer.Option(512, min=1, help="Of the decoder."),
    drop_path: float | None = typer.Option(
        None, min=0, max=0.99, help="Stochastic depth of the last block, instead of the published training's."
    ),
    dtype: str = typer.Option("float32", help="float32, or bfloat16 by autocast."),
    device: str = typer.Option("auto", help="auto, cpu or cuda."),
    workers: int = typer.Option(0, min=0, help="Processes that read images, per process that trains."),
    save_every: int = typer.Option(1000, min=1, help="Steps after which what is done is on disk."),
    seed: int = typer.Option(0, min=0, max=2**31 - 1, help="Of weights, order and augmentation."),
    out: Path = typer.Option(Path("segment"), help="Folder for the checkpoint and the weights."),
    resume: bool = typer.Option(False, "--resume", help="Continue the training in --out."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress."),
) -> None:
    """Train UperNet as the papers do: AdamW, rate 6e-5, decay 0.01, 1500 steps of warm-up, linear fall to 0.

    Several GPUs: torchrun --nproc-per-node 8 -m vheatbench segment train ...
    """
    with one_voice():
        chosen("--schedule", schedule, ("160k", "80k"))
        positive("--lr", lr)
        autocast = precision(dtype)
        fresh(out, resume)
    with working(device) as group:
        from vheatbench.errors import UserError
        from vheatbench.studies.dense.segmentation.ade import read_ade
        from vheatbench.studies.dense.segmentation.labels import Numbering
        from vheatbench.studies.dense.segmentation.train import (
            about_of,
            segmentation_schedule,
            train_segmenter,
        )

        def plan() -> tuple[AdeFolder, dict[str, Any], Beginning | None]:
            if batch < 2 * group.size:
                raise UserError(f"--batch {batch}: batch norms need two crops in each of {group.size} processes")
            folder = read_ade(data, split, Numbering.of(classes, reduce_zero_label, ignore_index))
            about = about_of(model, folder, schedule, crop, channels, drop_path)
            check_writable(out, "--out")
            return folder, about, beginning_of(backbone_weights, use, rule, trust_pickle)

        folder, about, beginning = group.together(plan)
        tell_labels(folder, group, quiet)
        progress = StepLines(quiet or not group.is_main)
        with keeping(lambda: checkpoint_kept(out, progress), group):
            path = train_segmenter(
                folder,
                about,
                segmentation_schedule(schedule, batch, lr, steps, seed),
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
    weights: Path = typer.Option(..., help="What `vheatbench segment train` wrote."),
    data: Path = typer.Option(..., help="Folder with images/SPLIT/ and annotations/SPLIT/."),
    split: str = typer.Option("validation", help="Part of the data to answer."),
    test: str = typer.Option(
        "slide", help="slide: in overlapping windows of the training's crops, as vHeat's; whole: at once, as Swin's."
    ),
    reduce_zero_label: bool | None = typer.Option(
        None, "--reduce-zero-label/--no-reduce-zero-label", help="Of these label maps; default as in the training."
    ),
    ignore_index: int | None = typer.Option(None, min=0, max=65535, help=IGNORE_HELP + "; default as in the training."),
    multi_scale: bool = typer.Option(
        False, "--multi-scale", help="Mean over six scales from 0.5 to 1.75 and mirror images; twelve times the work."
    ),
    device: str = typer.Option("auto", help="auto, cpu or cuda."),
    results: Path = typer.Option(Path("results"), help="Folder for the run's file."),
    json_: bool = typer.Option(False, "--json", help="Print the record as JSON on stdout."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress."),
) -> None:
    """Mean intersection over union; every image is answered once, by whichever process."""
    with one_voice():
        chosen("--test", test, ("slide", "whole"))
    path: Path | None = None
    with working(device) as group:
        from vheatbench.studies.dense.answers import Answers
        from vheatbench.studies.dense.files import read_trained
        from vheatbench.studies.dense.record import Evaluation, write_evaluation
        from vheatbench.studies.dense.segmentation.ade import read_ade
        from vheatbench.studies.dense.segmentation.evaluate import LONGEST, SCALES, SIDE, evaluate_segmenter
        from vheatbench.studies.dense.segmentation.labels import Numbering
        from vheatbench.studies.dense.segmentation.train import build_segmenter
        from vheatbench.text import utc_now

        def plan() -> tuple[TrainedFile, AdeFolder, dict[str, Any], UperNet, Answers]:
            trained = read_trained(weights, "upernet")
            numbering = Numbering.trained(trained.about)
            asked = {"reduce_zero_label": reduce_zero_label, "ignore_index": ignore_index}
            given: dict[str, Any] = {
                name: value for name, value in asked.items() if value not in (None, numbering.settings[name])
            }
            folder = read_ade(data, split, replace(numbering, **given))
            model = build_segmenter(trained.about)
            trained.load_into(model)
            place = (folder.fingerprint, str(folder.images[0].parent.resolve()), group.device.type)
            kept = Answers.of(results, "segment-eval", trained.sha256, *place, test, multi_scale, *given.items())
            check_writable(results, "--results")
            return trained, folder, given, model.eval().to(group.device), kept

        started = utc_now()
        trained, folder, given, model, kept = group.together(plan)
        tell_labels(folder, group, quiet)
        side = trained.about["crop"]
        with keeping(lambda: answers_kept(kept), group):
            result = evaluate_segmenter(
                model,
                folder,
                group,
                side,
                SCALES if multi_scale else (1.0,),
                multi_scale,
                image_lines(quiet or not group.is_main),
                side if test == "slide" else None,
                kept,
            )
        if group.is_main:
            present = sum(value is not None for value in result.ious)
            name = "miou_multi_scale" if multi_scale else "miou"
            done = Evaluation(
                trained=trained,
                subject=f"upernet:{trained.about['model']}",
                resolution=(side, side * LONGEST // SIDE),
                device=group.device.type,
                data=folder.fingerprint,
                data_name=data.resolve().name,
                scores={name: result.miou, "pixel_accuracy": result.accuracy},
                how=f"mean over {present} classes that are there or answered, of {result.images} images"
                + (", scales 0.5 to 1.75 and mirror images" if multi_scale else ", one scale")
                + (f", in windows of {side} pixels every {2 * side // 3}" if test == "slide" else ", whole images"),
                images=result.images,
                model_s=result.model_s,
                options={"test": test, **({"scales": "multi"} if multi_scale else {}), **given},
                data_facts=facts_of(folder),
                warnings=folder.counts.warnings,
            )
            path = write_evaluation(done, results, "segment-eval", command_line(), started)
            kept.forget()
    if path is not None:
        show_evaluation(path, json_)


def tell_labels(folder: AdeFolder, group: Group, quiet: bool) -> None:
    """Say which labels occur and how often, which classes never do, and which images are turned."""
    tell(["" if quiet else str(folder.counts), *(f"! {line}" for line in folder.counts.warnings)], group)
    tell([str(folder.turned)], group)


def facts_of(folder: AdeFolder) -> dict[str, Any]:
    """What a record says of the label maps: their numbering, and pixels by number."""
    pixels = {str(number): count for number, count in folder.counts.pixels.items()}
    turned = {"turned": str(folder.turned)} if str(folder.turned) else {}
    return {**folder.numbering.settings, "labels": pixels, **turned}
