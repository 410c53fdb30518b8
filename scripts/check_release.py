"""Build the wheel and the source distribution, and try the wheel as a stranger would: ``make release-check``.

Each in an empty environment with the runtime dependencies alone: once with the newest versions, once with the oldest
that ``pyproject.toml`` allows. In each: the command, a suite, a shipped model's receptive field, its page. Takes the
network, 5.5 GB for each environment, and minutes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Build, check, install, try."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oldest", action="store_true", help="only with the oldest versions")
    parser.add_argument("--newest", action="store_true", help="only with the newest versions")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vheatbench-release-") as name:
        folder = Path(name)
        run([sys.executable, "-m", "build", "--outdir", str(folder / "dist"), str(ROOT)])
        built = sorted((folder / "dist").iterdir())
        run([sys.executable, "-m", "twine", "check", "--strict", *map(str, built)])
        (wheel,) = (path for path in built if path.suffix == ".whl")
        for label, pins in (("newest", []), ("oldest", oldest())):
            if (asked.oldest or asked.newest) and not getattr(asked, label):
                continue
            print(f"== {label} versions", *pins, flush=True)
            try_wheel(wheel, folder / label, pins)
            shutil.rmtree(folder / label)


def oldest() -> list[str]:
    """The oldest version of every runtime dependency, pinned."""
    text = (ROOT / "pyproject.toml").read_text()
    found = re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return [one.replace(">=", "==") for one in re.findall(r'"([^"]+>=[^"]+)"', found[1])]


def try_wheel(wheel: Path, place: Path, pins: list[str]) -> None:
    """Install it into an empty environment and use it outside of the checkout."""
    venv.create(place, with_pip=True)
    run([str(place / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", str(wheel), *pins])
    work = place / "work"
    work.mkdir()
    command = str(place / "bin" / "vheatbench")
    for words in (
        "--version",
        "run --suite smoke --budget 60s -q",
        "erf --model vheat-micro:photographs --resolution 64 --max-images 10 -q",
        "heat diffuse --model vheat-micro:photographs -q",
        "report --output page.html",
    ):
        run([command, *words.split()], work)
    if not (work / "page.html").stat().st_size > 10_000:
        raise SystemExit("the page is empty")


def run(command: list[str], folder: Path = ROOT) -> None:
    """Carry a command out; end where it fails."""
    print("$", *command, flush=True)
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    code = subprocess.run(command, cwd=folder, env=kept).returncode
    if code:
        raise SystemExit(f"ended with code {code}")


if __name__ == "__main__":
    main()
