"""Versions of a repository side by side: what a ref means, what is uncommitted, and that nothing is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from support.git_folder import commit, git, worktrees
from vheatbench.ab import interpreter, worktree
from vheatbench.ab.arm import ArmError, moved_path, version_arms, with_project
from vheatbench.ab.interpreter import InstallError, dependency_key, known_fields, make_environment, search_path
from vheatbench.ab.worktree import Repository
from vheatbench.case import Case
from vheatbench.errors import UserError
from vheatbench.run.task import InspectTask, MeasureTask
from vheatbench.suites import SuitePolicy


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with two commits, the first one tagged; temporary folders lie beside it."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(worktree.tempfile, "tempdir", str(tmp_path / "tmp"))
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "part").mkdir()
    (folder / "part" / "own.py").write_text("VALUE = 1\n")
    commit(folder, "first", tag="v1")
    (folder / "part" / "own.py").write_text("VALUE = 2\n")
    commit(folder, "second")
    return folder


def clean(project: Path) -> bool:
    """Nothing in the temporary folder, and git knows of no worktree but the repository's own."""
    return worktrees(project) == 0 and not temporary(project)


def temporary(project: Path) -> list[Path]:
    return list((project.parent / "tmp").iterdir())


# Refs


def test_a_ref_is_a_branch_a_tag_or_a_commit(project: Path) -> None:
    repository = Repository(project)
    first, second = git(project, "rev-parse", "v1"), git(project, "rev-parse", "main")
    assert repository.version("v1").commit == first
    assert repository.version("main").commit == repository.version("HEAD").commit == second
    assert repository.version("HEAD~1").name == f"HEAD~1 ({first[:10]})"
    assert repository.version(first[:8]).name == first[:10]


@pytest.mark.parametrize("ref", ["-v", "--upload-pack=touch hacked", "", "-"])
def test_a_ref_is_never_an_option_of_git(project: Path, ref: str) -> None:
    with pytest.raises(UserError, match="is no git ref"):
        Repository(project).version(ref)
    assert not (project / "hacked").exists()


@pytest.mark.parametrize(
    ("ref", "advice"),
    [
        ("mian", "did you mean main?"),
        ("nowhere-near", "`git branch --all` and `git tag` list"),
        ("v1:part", "git branch"),
    ],
)
def test_a_ref_that_is_not_there(project: Path, ref: str, advice: str) -> None:
    with pytest.raises(UserError, match=f"no version '{ref}' in project: ") as caught:
        Repository(project).version(ref)
    assert advice in str(caught.value)


def test_a_branch_that_only_the_remote_has_is_named(project: Path) -> None:
    git(project, "update-ref", "refs/remotes/origin/develop", "HEAD")
    with pytest.raises(UserError, match="did you mean origin/develop"):
        Repository(project).version("develop")


def test_a_shallow_clone_says_what_to_fetch(project: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{project}", "clone")
    with pytest.raises(UserError, match="shallow clone: `git fetch --unshallow` or `git fetch origin v1` first"):
        Repository(tmp_path / "clone").version("v1")


def test_a_repository_without_commits_and_no_repository(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is in no git repository"):
        Repository(tmp_path)
    git(tmp_path, "init", "--quiet")
    with pytest.raises(UserError, match="it has no commit yet"):
        Repository(tmp_path).version("HEAD")


def test_without_git(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="git is not installed"):
        Repository(project)


def test_a_hook_of_another_repository_does_not_lead_astray(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(project.parent / "elsewhere"))
    assert Repository(project).root == project


# The working tree


def test_what_is_uncommitted_has_a_hash(project: Path) -> None:
    repository = Repository(project / "part")
    clean_tree = repository.version(".")
    assert (clean_tree.changes, clean_tree.changed_files) == ("", 0)
    assert clean_tree.name == f"working tree ({clean_tree.commit[:10]})"
    (project / "part" / "own.py").write_text("VALUE = 3\n")
    changed = repository.version(".")
    assert len(changed.changes) == 12
    assert f"uncommitted changes {changed.changes} in 1 file)" in changed.name
    (project / "new\n.py").write_text("a")
    with_new = repository.version(".")
    assert with_new.changed_files == 2
    (project / "new\n.py").write_text("b")
    assert len({changed.changes, with_new.changes, repository.version(".").changes}) == 3
    git(project, "add", "--all")
    assert repository.version(".").changed_files == 2


def test_results_and_compiled_python_are_no_changes(project: Path) -> None:
    repository = Repository(project)
    for name in ("results/run.jsonl", "verdict.json", "part/__pycache__/own.pyc"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("x")
    ignore = [project / "results", project / "verdict.json"]
    assert repository.version(".", ignore).changes == ""
    assert repository.version(".").changed_files == 2


# Worktrees


def test_worktrees_hold_their_versions_and_go(project: Path) -> None:
    repository = Repository(project)
    commits = {"base": repository.version("v1").commit, "head": repository.version("main").commit}
    with repository.checked_out(commits) as places:
        assert {name: (place / "part" / "own.py").read_text() for name, place in places.items()} == {
            "base": "VALUE = 1\n", "head": "VALUE = 2\n",
        }  # fmt: skip
        (places["base"] / "left.py").write_text("built here")
        assert not clean(project)
    assert clean(project)
    assert git(project, "status", "--porcelain") == ""
    assert git(project, "branch", "--list").split() == ["*", "main"]


def test_one_version_twice(project: Path) -> None:
    commit_ = Repository(project).version("main").commit
    with Repository(project).checked_out({"base": commit_, "head": commit_}) as places:
        assert len(set(places.values())) == 2
    assert clean(project)


def test_the_repositorys_hooks_do_not_run(project: Path) -> None:
    hook = project / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {project / 'ran'}\n")
    hook.chmod(0o755)
    with Repository(project).checked_out({"base": Repository(project).version("v1").commit}):
        pass
    assert not (project / "ran").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_any_end_removes_the_worktrees(project: Path, error: type[BaseException]) -> None:
    repository = Repository(project)
    with pytest.raises(error), repository.checked_out({"base": repository.version("v1").commit}):
        raise error
    assert clean(project)


def test_a_worktree_that_its_own_git_cannot_remove(project: Path) -> None:
    repository = Repository(project)
    with repository.checked_out({"base": repository.version("v1").commit}) as places:
        (places["base"] / ".git").unlink()
    assert clean(project)


def test_a_commit_that_git_cannot_check_out(project: Path) -> None:
    with (
        pytest.raises(UserError, match="git cannot check project out: "),
        Repository(project).checked_out({"head": Repository(project).version("v1").commit, "base": "0" * 40}),
    ):
        pass
    assert clean(project)


def test_what_a_killed_comparison_left_goes_with_the_next_one(project: Path) -> None:
    code = f"""
import signal, os, tempfile
from pathlib import Path
tempfile.tempdir = {str(project.parent / "tmp")!r}
from vheatbench.ab.worktree import Repository
repository = Repository(Path({str(project)!r}))
with repository.checked_out({{"base": repository.version("v1").commit}}):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not clean(project)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (project.parent / "tmp" / f"vheatbench-ab-{dead.pid}-empty").mkdir()
    with Repository(project).checked_out({"base": Repository(project).version("v1").commit}):
        assert len(temporary(project)) == 1
    assert clean(project)


def test_worktrees_of_a_comparison_that_is_still_running_stay(project: Path) -> None:
    repository = Repository(project)
    commit_ = repository.version("v1").commit
    with repository.checked_out({"base": commit_}) as outer:
        with repository.checked_out({"base": commit_}):
            pass
        assert (outer["base"] / "part" / "own.py").exists()
    # nor does a worktree of the user's own go
    git(project, "worktree", "add", "--quiet", "--detach", str(project.parent / "mine"), "v1")
    with repository.checked_out({"base": commit_}):
        pass
    assert (project.parent / "mine" / "part" / "own.py").exists()


def test_signals_wait_until_the_worktrees_are_gone(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Repository(project)
    remove = Repository._remove

    def interrupted(self: Repository, place: Path) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        remove(self, place)

    monkeypatch.setattr(Repository, "_remove", interrupted)
    # a thread that blocks nothing takes the signal
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    try:
        with pytest.raises(KeyboardInterrupt), repository.checked_out({"base": repository.version("v1").commit}):
            pass
    finally:
        done.set()
        other.join()
    assert clean(project)


def test_submodules_are_known(project: Path, tmp_path: Path) -> None:
    assert Repository(project).submodules() == []
    git(tmp_path, "clone", "--quiet", str(project), "inner")
    git(project, "submodule", "--quiet", "add", str(tmp_path / "inner"), "lib/with space")
    assert Repository(project).submodules() == ["lib/with space"]


# Environments


def test_only_what_must_be_installed_decides_over_environments(tmp_path: Path) -> None:
    def key(text: str, **files: str) -> str:
        shutil.rmtree(tmp_path / "p", ignore_errors=True)
        (tmp_path / "p").mkdir()
        (tmp_path / "p" / "pyproject.toml").write_text(text)
        for name, content in files.items():
            (tmp_path / "p" / f"{name}.txt").write_text(content)
        return dependency_key(tmp_path / "p")

    plain = '[project]\nname = "p"\nversion = "{}"\ndependencies = ["torch>={}"]\n'
    same = key(plain.format(1, 2))
    if sys.version_info >= (3, 11):
        assert same == key(plain.format(2, 2) + "[tool.ruff]\nline-length = 100\n")
    others = [
        key(plain.format(1, 3)),
        key(plain.format(1, 2), requirements="einops"),
        key(plain.format(1, 2), requirements_dev="einops"),
        key(plain.format(1, 2) + '[build-system]\nrequires = ["x"]\n'),
        key("not toml ["),
    ]
    assert len({same, *others}) == 1 + len(others)
    (tmp_path / "empty").mkdir()
    assert dependency_key(tmp_path / "empty") != same


@pytest.mark.slow
def test_an_environment_of_its_own_has_its_own_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "_own_requirements", list)
    (tmp_path / "requirements.txt").write_text("# nothing\n")
    python = make_environment(tmp_path, tmp_path / "environment")
    path = search_path(python, tmp_path)
    assert any(entry.startswith(str(tmp_path / "environment")) for entry in path)
    assert not any(entry.startswith(sys.prefix) and "site-packages" in entry for entry in path)
    with pytest.raises(InstallError, match="No module named"):
        known_fields(python, path, tmp_path)


@pytest.mark.slow
def test_a_version_with_other_dependencies_that_cannot_be_installed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(interpreter, "_own_requirements", list)
    (project / "requirements.txt").write_text("there-is-no-such-thing==1\n")
    commit(project, "needs more")
    repository = Repository(project)
    versions = {"base": repository.version("main"), "head": repository.version(".")}
    git(project, "rm", "--quiet", "requirements.txt")
    said: list[str] = []
    with (
        pytest.raises(ArmError, match=r"^base \(main \(.*\)\): ERROR: No matching distribution found for there-is-no"),
        version_arms(repository, versions, [], said.append),  # type: ignore[arg-type]
    ):
        pass
    assert said == [f"base ({versions['base'].name}): its dependencies are not the working tree's; "
                    "installing them can take minutes"]  # fmt: skip
    assert clean(project)


def test_a_version_runs_its_own_code_in_the_present_environment(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(project / "part"))
    monkeypatch.setenv("PYTHONPATH", str(project / "part"))
    repository = Repository(project)
    versions = {"base": repository.version("v1"), "head": repository.version(".")}
    values = {}
    with version_arms(repository, versions, [], print) as arms:  # type: ignore[arg-type]
        for side, arm in arms.items():
            launch = arm.launch
            code = f"import sys; sys.path[:] = {list(launch.path or ())!r}; import own; print(own.VALUE)"
            command = [launch.python, "-c", code]
            done = subprocess.run(command, cwd=launch.folder, capture_output=True, text=True, check=True)
            values[side] = done.stdout.strip()
            assert launch.leave_out == {}
            assert launch.variables["PYTHONPATH"] == str((launch.folder or project) / "part")
            assert arm.facts["interpreter"] == "the present environment"
    assert values == {"base": "1", "head": "2"}


def test_an_older_vheatbench_is_not_told_what_it_does_not_know(project: Path) -> None:
    package = project / "vheatbench"
    (package / "run").mkdir(parents=True)
    for name in ("__init__.py", "run/__init__.py", "run/worker.py"):
        (package / name).touch()
    old = "class {}:\n    model_fields = {}\n"
    (package / "case.py").write_text(old.format("Case", ["subject", "resolution", "device", "batch"]))
    (package / "suites.py").write_text(
        old.format("SuitePolicy", sorted(SuitePolicy.model_fields.keys() - {"fvcore", "turns", "budget_s"}))
    )
    (package / "run" / "task.py").write_text(old.format("MeasureTask", ["task", "case", "round", "policy"]))
    commit(project, "an old vheatbench")
    repository = Repository(project)
    with version_arms(repository, {"base": repository.version("main")}, [], print) as arms:  # type: ignore[dict-item]
        arm = arms["base"]
        task = MeasureTask(case=Case(subject="a", resolution=32, batch=2))
        told = task.model_dump(exclude=dict(arm.launch.leave_out))
        assert set(told["case"]) == {"subject", "resolution", "device", "batch"}
        assert "fvcore" not in told["policy"]
        assert told.keys() == {"task", "case", "round", "policy"}
        assert not arm.takes_turns
        arm.check_understood([task.case], SuitePolicy(turns=False, budget_s=3.0))  # which is no business of a worker
        many = InspectTask(cases=[task.case]).model_dump(exclude=dict(arm.launch.leave_out))
        assert set(many["cases"][0]) == set(told["case"])
        arm.check_understood([task.case], SuitePolicy())
        with pytest.raises(UserError, match="does not know 'dtype'"):
            arm.check_understood([Case(subject="a", resolution=32, dtype="bfloat16")], SuitePolicy())
        with pytest.raises(UserError, match="does not know 'fvcore'"):
            arm.check_understood([task.case], SuitePolicy(fvcore=True))


def test_the_search_path_moves_with_the_worktree(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old / "src", old / "env" / "site-packages", new / "src"):
        folder.mkdir(parents=True)
    python = ["/usr/lib/python311.zip", "/usr/lib/python3.11", "/usr/lib/python3.11/lib-dynload"]
    packages = str(old / "env" / "site-packages")
    moved = moved_path(["", str(old), str(old / "src"), *python, packages, str(old / "src")], old, new)
    assert moved == [str(new), str(new / "src"), *python, packages]
    # after the standard library, so that a random.py of the project's is not Python's, and before other copies of it
    assert with_project(["/other", *moved], [new, new / "src", new / "missing"]) == [
        *python, str(new), str(new / "src"), "/other", packages,
    ]  # fmt: skip
