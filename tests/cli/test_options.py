"""Options mean the same in every command: one walk over all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.command import commands

FLAGS = {"--json": True, "--quiet": True, "--results": False, "--figures": False, "--device": False, "--seed": False}
"""Common options, and whether they take no value."""
PLACES = {"--results", "--figures", "--checkpoints", "--trace"}
"""What ``--out`` may be an old spelling of."""
MEASURING = {
    "run", "ab", "erf", "heat diffuse", "heat diffusivity", "heat kernel", "eval", "profile", "train", "detect eval",
    "segment eval",
}  # fmt: skip


def leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its words."""
    if hasattr(command, "commands"):
        for word, below in command.commands.items():
            yield from leaves(below, f"{name} {word}".strip())
    else:
        yield name, command


ALL = dict(found for name, command in commands().items() for found in leaves(command, name))


def options_of(command: Any) -> dict[str, Any]:
    return {spelt: one for one in command.params if one.param_type_name == "option" for spelt in one.opts}


@pytest.mark.parametrize("name", ALL)
def test_common_options_have_one_name_and_one_kind(name: str) -> None:
    found = options_of(ALL[name])
    assert {spelt: found[spelt].is_flag for spelt in FLAGS if spelt in found} == {
        spelt: flag for spelt, flag in FLAGS.items() if spelt in found
    }
    assert ("-q" in found) == ("--quiet" in found)
    assert "--out" not in found or PLACES & set(found["--out"].opts), "an old spelling of one of these, and no more"


@pytest.mark.parametrize("name", sorted(MEASURING))
def test_what_measures_says_where_on_what_and_how(name: str) -> None:
    found = options_of(ALL[name])
    assert {"--results", "--device", "--json", "--quiet", "-q"} <= found.keys()
    assert str(found["--results"].default) == "results"
    assert found["--device"].default == "auto"


@pytest.mark.parametrize("name", ["erf", "heat diffuse", "heat diffusivity", "heat kernel"])
def test_what_draws_has_a_folder_of_figures_and_its_old_spelling(name: str) -> None:
    found = options_of(ALL[name])
    assert found["--figures"] is found["--out"]


@pytest.mark.parametrize("name", ["run", "ab", "merge"])
def test_the_folder_of_runs_has_its_old_spelling(name: str) -> None:
    found = options_of(ALL[name])
    assert found["--results"] is found["--out"]
