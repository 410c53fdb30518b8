"""The official code as a baseline: our weights under its names. Its file is not part of this package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch

from benchmarks.models import ARRANGEMENTS, official_state
from vheatbench.subjects.weights import convert_official

KEYS = Path(__file__).parents[1] / "tests/data/official_checkpoint_keys.json"


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_every_weight_goes_to_the_official_code_and_back(name):
    shapes = json.loads(KEYS.read_text())[name]
    theirs = {key: torch.zeros(shape) for key, shape in shapes.items()}
    ours = timm.create_model(name).state_dict()
    state = official_state(theirs, ours)
    assert {key: list(value.shape) for key, value in state.items()} == shapes
    back = convert_official(state)
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[key], ours[key]) for key in ours)
