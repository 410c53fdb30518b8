"""What ``--slurm`` takes, which shard measures what, and what the script says."""

from __future__ import annotations

from pathlib import Path

import pytest

from vheatbench.case import Case
from vheatbench.errors import UserError
from vheatbench.run.task import Forecast, Group
from vheatbench.slurm.cluster import ranges, seconds_of
from vheatbench.slurm.division import divide, minutes_for
from vheatbench.slurm.folder import ClusterFolder
from vheatbench.slurm.options import SlurmOptions, parse_slurm
from vheatbench.slurm.script import array_script, merge_script
from vheatbench.slurm.shared import local_file_system


def test_options_of_sbatch_and_our_own() -> None:
    options = parse_slurm(
        "partition=gpu,gres=gpu:h100:1,tmp:5,array=8%4,exclude=n1,n2,exclusive,time=2:00:00,shared=yes"
    )
    assert options == SlurmOptions(
        {"partition": "gpu", "gres": "gpu:h100:1,tmp:5", "exclude": "n1,n2", "exclusive": None},
        shards=8, throttle=4, time="2:00:00", shared=True,
    )  # fmt: skip
    assert options.gpus
    assert parse_slurm("export=ALL,HF_HOME=/x").sbatch == {"export": "ALL,HF_HOME=/x"}
    plain = parse_slurm("partition=cpu,time=auto,no-requeue")
    assert (plain.shards, plain.time, plain.gpus, plain.requeue) == (1, None, False, False)
    assert parse_slurm("gpus-per-task=1").gpus


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is no option"),
        ("gpu", "'gpu' is no option"),
        ("array=0", "array=0"),
        ("array=2-4", "array=2-4"),
        ("array=8%0", "array=8%0"),
        ("partition=", "partition="),
        ("comment=a\nb", "printable"),
        ('comment="x"', "printable"),
        ("partition=a,partition=b", "twice"),
        ("shared=maybe", "shared=maybe"),
        ("ntasks=4", "leave ntasks out"),
        ("signal=USR1", "leave signal out"),
    ],
)
def test_what_is_no_option_is_said(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_slurm(text)


def groups_of_two(sizes: int) -> list[Case]:
    return [Case(subject=name, resolution=32 * size) for size in range(1, sizes + 1) for name in ("one", "two")]


@pytest.mark.parametrize("shards", [1, 2, 3, 5])
def test_groups_stay_whole_and_every_shard_has_the_common_ones(shards: int) -> None:
    ceiling = Case(subject="ceiling/copy", resolution=64)
    cases = [ceiling, *groups_of_two(5)]
    forecasts = {case.id: Forecast(case_id=case.id, seconds=case.pixels / 1000) for case in cases}
    study = Group(
        label="a study", cases=[Case(subject="s", resolution=32, mode="heat", analysis={"part": n}) for n in (1, 2)]
    )
    division = divide(cases, [study], forecasts, rounds=2, shards=shards)
    assert division.common == [ceiling.id, cases[1].id, cases[2].id]
    own = [id_ for ids in division.shards for id_ in ids if id_ not in division.common]
    assert sorted([*own, *division.common]) == sorted(case.id for case in [*cases, *study.cases])
    for ids in division.shards:
        assert ids[: len(division.common)] == division.common
        for group in [*(cases[i : i + 2] for i in range(1, 11, 2)), study.cases]:
            assert len({case.id in ids for case in group}) == 1
    timed = {case.id: case for case in cases}
    expected = [2 * sum(forecasts[id_].seconds for id_ in ids if id_ in timed) for ids in division.shards]
    study_s = [seconds - known for seconds, known in zip(division.foreseen_s, expected, strict=True)]
    assert sum(study_s) == pytest.approx(120)
    assert minutes_for([60.0, 600.0]) == 40
    assert minutes_for([60.0, 6000.0], budget_s=600.0) == 21


def test_more_shards_than_groups_are_refused() -> None:
    with pytest.raises(UserError, match="5 shards are more than there are groups: 4"):
        divide(groups_of_two(4), [], {}, 1, 5)


def test_the_script_asks_for_what_was_said(tmp_path: Path) -> None:
    folder = ClusterFolder(tmp_path / "a 100% folder")
    options = parse_slurm("partition=gpu,gres=gpu:1,constraint=a&b,exclusive,array=4%2,account=me")
    script = array_script(folder, options, 42, ["/usr/bin/python", "-m", "vheatbench"])
    lines = script.splitlines()
    asked = [line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")]
    assert asked[1:] == [
        "partition=gpu", "gres=gpu:1", 'constraint="a&b"', "exclusive", "account=me", "array=1-4%2", "ntasks=1",
        "time=42", "requeue", "signal=TERM@120", "open-mode=append", f'output="{tmp_path}/a 100%% folder/logs/%a.log"',
    ]  # fmt: skip
    assert lines[-1].startswith("exec srun /usr/bin/python -m vheatbench slurm shard ")
    last = merge_script(folder, options, ["vheatbench"])
    assert "account=me" in last
    assert not any(word in last for word in ("gres", "exclusive", "array", "signal"))
    assert "requeue" not in array_script(folder, parse_slurm("no-requeue"), 1, ["v"]).replace("no-requeue", "")


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        ("30", 1800),
        ("1:30", 90),
        ("2:00:00", 7200),
        ("1-12", 129600),
        ("1-00:00:30", 86430),
        ("infinite", None),
        ("n/a", None),
    ],
)
def test_times_of_slurm(limit: str, seconds: int | None) -> None:
    assert seconds_of(limit) == seconds


def test_numbers_in_a_row_are_one_range() -> None:
    assert ranges([1, 2, 3, 7, 9, 10]) == [(1, 3), (7, 7), (9, 10)]


def test_a_folder_of_this_machine_is_known(tmp_path: Path) -> None:
    assert local_file_system(tmp_path / "not" / "there") is not None
