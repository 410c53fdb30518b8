"""Versions of a git repository, checked out beside each other into worktrees that do not outlive the comparison."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vheatbench.errors import UserError
from vheatbench.files import blocks_of
from vheatbench.measure.checkout import HOOK_VARIABLES
from vheatbench.stop import deferred
from vheatbench.text import one_line

Name = TypeVar("Name", bound=str)

PREFIX = "vheatbench-ab"
"""Of the temporary folder that holds the worktrees; the id of the process follows."""


@dataclass(frozen=True)
class Version:
    """One version of the code."""

    ref: str
    """As it was asked for; ``.`` for the working tree as it is."""
    commit: str
    changes: str = ""
    """12 hexadecimal digits of the SHA-256 of everything uncommitted; empty for a clean version."""
    changed_files: int = 0

    @property
    def name(self) -> str:
        """The version in words."""
        short = self.commit[:10]
        if self.ref != ".":
            return short if self.commit.startswith(self.ref) else f"{self.ref} ({short})"
        if not self.changes:
            return f"working tree ({short})"
        files = f"{self.changed_files} file{'s' * (self.changed_files > 1)}"
        return f"working tree ({short} and uncommitted changes {self.changes} in {files})"


class Repository:
    """The git repository around a folder."""

    def __init__(self, folder: Path | None = None) -> None:
        """Raises UserError where ``folder`` (the working directory if None) is in no repository with files."""
        self._folder = (folder or Path.cwd()).resolve()
        try:
            self.root = Path(self._git("rev-parse", "--show-toplevel")).resolve()
        except _GitError as error:
            raise UserError(
                f"{self._folder} is in no git repository, and versions are compared by git ({error}): "
                "change into one, or compare two models with --base-model and --head-model"
            ) from None
        self.prefix = Path(self._git("rev-parse", "--show-prefix") or ".")
        """From the repository's root to ``folder``."""

    def version(self, ref: str, ignore: Sequence[Path] = ()) -> Version:
        """The version that ``ref`` means: a branch, tag or commit, or ``.`` for the working tree.

        Files in ``ignore`` and compiled Python are no part of the working tree.

        Raises:
            UserError: there is no such version, with the nearest names and what to fetch.
        """
        if ref == ".":
            changes, files = self._changes(ignore)
            return Version(ref, self._commit("HEAD"), changes, files)
        if not ref or ref.startswith("-"):
            raise UserError(f"{ref!r} is no git ref: give a branch, a tag or a commit")
        return Version(ref, self._commit(ref))

    def submodules(self) -> list[str]:
        """Folders of the submodules; worktrees leave them empty."""
        with contextlib.suppress(_GitError):
            # each is the key, a line break and the value
            found = self._git("config", "-z", "--file", str(self.root / ".gitmodules"), "--get-regexp", r"\.path$")
            return [entry.split("\n", 1)[1] for entry in found.split("\0") if entry]
        return []

    @contextlib.contextmanager
    def checked_out(self, commits: Mapping[Name, str]) -> Iterator[dict[Name, Path]]:
        """A worktree for every name, without branch, each in a temporary folder called so; removed at the end.

        At the beginning those are removed that a killed comparison has left. Raises UserError if git refuses.
        """
        self._remove_leftovers()
        with deferred():
            folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-{os.getpid()}-")).resolve()
        places = {name: folder / name for name in commits}
        try:
            for name, place in places.items():
                with deferred():
                    # the repository's hooks are for people who change branches
                    self._git(
                        "-c", "core.hooksPath=/dev/null",
                        "worktree", "add", "--quiet", "--detach", str(place), commits[name],
                    )  # fmt: skip
            yield places
        except _GitError as error:
            raise UserError(f"git cannot check {self.root.name} out: {error}") from None
        finally:
            with deferred():
                for place in places.values():
                    self._remove(place)
                shutil.rmtree(folder, ignore_errors=True)

    def _commit(self, ref: str) -> str:
        try:
            return self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
        except _GitError:
            raise UserError(f"there is no version {ref!r} in {self.root.name}: {self._advice(ref)}") from None

    def _advice(self, ref: str) -> str:
        if ref == "HEAD":
            return "it has no commit yet"
        with contextlib.suppress(_GitError):
            if self._git("rev-parse", "--is-shallow-repository") == "true":
                return f"it is a shallow clone: `git fetch --unshallow` or `git fetch origin {ref}` first"
        known = self._git("for-each-ref", "--format=%(refname:short)").splitlines()
        known += [name.split("/", 1)[1] for name in known if "/" in name]
        near = difflib.get_close_matches(ref, known, n=3)
        remote = [name for name in known if name.endswith(f"/{ref}")]
        near = list(dict.fromkeys([*remote, *near]))
        return f"did you mean {' or '.join(near)}?" if near else "`git branch --all` and `git tag` list what there is"

    def _changes(self, ignore: Sequence[Path]) -> tuple[str, int]:
        """What in the working tree is not in HEAD: a hash and how many files; empty and 0 if nothing."""
        kept = [":(top)", ":(top,exclude,glob)**/__pycache__/**"]
        for path in ignore:
            inside = path.resolve()
            if self.root in inside.parents:
                kept.append(f":(top,exclude,literal){inside.relative_to(self.root)}")
        try:
            changed = self._git("diff", "--name-only", "-z", "HEAD", "--", *kept).split("\0")
            text = self._git("diff", "--binary", "--no-ext-diff", "HEAD", "--", *kept)
            new = self._git("ls-files", "--others", "--exclude-standard", "-z", "--full-name", "--", *kept).split("\0")
        except _GitError as error:
            raise UserError(f"git cannot say what is changed in {self.root.name}: {error}") from None
        changed, new = list(filter(None, changed)), sorted(filter(None, new))
        digest = hashlib.sha256(text.encode(errors="surrogateescape"))
        for name in new:
            digest.update(b"\0" + os.fsencode(name) + b"\0")
            with contextlib.suppress(OSError):  # gone since, or a nested repository
                for block in blocks_of(self.root / name):
                    digest.update(block)
        return (digest.hexdigest()[:12], len(changed) + len(new)) if changed or new else ("", 0)

    def _remove_leftovers(self) -> None:
        """Remove the worktrees of comparisons whose process is gone: killed, or the machine went down."""
        for line in self._git("worktree", "list", "--porcelain").splitlines():
            place = Path(line.removeprefix("worktree "))
            ours = re.match(rf"{PREFIX}-(\d+)-", place.parent.name)
            if ours and not _alive(int(ours[1])):
                self._remove(place)
                shutil.rmtree(place.parent, ignore_errors=True)
        for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}-*-*"):
            ours = re.match(rf"{PREFIX}-(\d+)-", folder.name)
            if ours and not _alive(int(ours[1])):
                with contextlib.suppress(OSError):  # not empty: another repository's worktrees, which removes them
                    folder.rmdir()

    def _remove(self, place: Path) -> None:
        with contextlib.suppress(_GitError):
            # twice: a checkout that was cut short is locked
            self._git("worktree", "remove", "--force", "--force", str(place))
        shutil.rmtree(place, ignore_errors=True)
        common = self._folder / self._git("rev-parse", "--git-common-dir")
        for entry in (common / "worktrees").glob("*/gitdir"):
            with contextlib.suppress(OSError):
                if Path(entry.read_text().strip()).parent == place:
                    shutil.rmtree(entry.parent)

    def _git(self, *arguments: str) -> str:
        environment = {key: value for key, value in os.environ.items() if key not in HOOK_VARIABLES}
        try:
            done = subprocess.run(
                ["git", "-C", str(self._folder), *arguments],
                capture_output=True,
                stdin=subprocess.DEVNULL,
                env={**environment, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"},
                # Ctrl-C is the comparison's to handle: git is let finish what it began
                start_new_session=True,
                check=False,
            )
        except FileNotFoundError:
            raise UserError("git is not installed, and versions are compared by git") from None
        if done.returncode:
            words = done.stderr.decode(errors="replace").strip().splitlines()
            raise _GitError(one_line(words[-1]) if words else f"git ended with code {done.returncode}")
        return done.stdout.decode(errors="surrogateescape").removesuffix("\n")


class _GitError(Exception):
    """git refused; its last line."""


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
