"""What ``import vheatbench as vb`` gives, and what it does not import."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest

import vheatbench as vb


def test_importing_it_loads_nothing_heavy():
    code = (
        "import sys, vheatbench as vb; vb.read_run; vb.UserError;"
        "print(sorted({'torch', 'timm', 'numpy', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", [name for name in vb.__all__ if name != "__version__"])
def test_every_name_is_there_and_explained(name):
    found = getattr(vb, name)
    assert name in dir(vb)
    assert inspect.getdoc(found)


@pytest.mark.parametrize("name", ["ab", "measure", "report", "run"])
def test_what_is_called_like_a_folder_is_both(name):
    function = getattr(importlib.import_module(f"vheatbench.api.{name}"), name)
    room = importlib.import_module(f"vheatbench.{name}")
    assert getattr(vb, name) is room
    assert callable(room)
    assert inspect.signature(room) == inspect.signature(function)
    assert inspect.getdoc(room) == inspect.getdoc(function)
    with pytest.raises((TypeError, vb.UserError), match="no_such_argument"):
        room(no_such_argument=1)


def test_modules_of_such_a_folder_are_reached_as_ever():
    import vheatbench.run.runner as runner

    assert vb.run.runner is runner
    assert vb.run.runner.Runner.__module__ == "vheatbench.run.runner"


def test_a_name_that_is_none():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = vb.no_such_name
