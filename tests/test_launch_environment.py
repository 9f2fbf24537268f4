"""Making and keeping the `.venv`: first time, unchanged, changed, interrupted, impossible."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from launcher import environment, pip
from launcher.environment import Environment
from launcher.lock import locked
from launcher.problems import NoDisk, NoNetwork, NotWritable, NoVenv, PipFailed
from tests.wheels import write_wheel

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def offline(monkeypatch, tmp_path) -> Path:
    """pip sees only this folder of wheels."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    (tmp_path / "wheels").mkdir()
    return tmp_path / "wheels"


@pytest.fixture(scope="module")
def made_venv(tmp_path_factory) -> Path:
    """One empty environment, made once and copied by the tests that need one."""
    folder = tmp_path_factory.mktemp("made") / ".venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return folder


@pytest.fixture
def project(tmp_path, made_venv) -> Path:
    """A folder with a requirements file and an empty `.venv` that nobody stamped."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copytree(made_venv, folder / ".venv", symlinks=True)
    (folder / "requirements.txt").write_text("tinyone==1.0\n")
    return folder


def find(project: Path) -> Path:
    return environment.find([project / "requirements.txt"], project)


def version_of(project: Path) -> str:
    code = "import tinyone; print(tinyone.version)"
    python = Environment(project / ".venv").python
    return subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip()


def no_pip(*_: object) -> None:
    raise AssertionError("pip was called")


def test_an_environment_that_has_everything_is_used_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(pip, "install", no_pip)
    found = environment.find([ROOT / "requirements.txt"], tmp_path)
    assert found == Path(sys.executable) and not (tmp_path / ".venv").exists()


def test_packages_are_installed_once_and_again_when_the_file_changes(
    project, offline, monkeypatch, capfd
):
    write_wheel(offline, "tinyone", "1.0")
    write_wheel(offline, "tinyone", "2.0")
    assert find(project) == Environment(project / ".venv").python
    assert version_of(project) == "1.0"
    with monkeypatch.context() as patch:
        patch.setattr(pip, "install", no_pip)
        find(project)
    (project / "requirements.txt").write_text("tinyone==2.0\n")
    find(project)
    assert version_of(project) == "2.0"
    assert "installing the packages" in capfd.readouterr().err


def test_a_failed_install_leaves_no_stamp_and_the_next_start_tries_again(project, offline):
    with pytest.raises(PipFailed, match="tinyone"):
        find(project)
    assert not Environment(project / ".venv").stamp.exists()
    write_wheel(offline, "tinyone", "1.0")
    find(project)
    assert version_of(project) == "1.0"


def test_a_half_made_environment_is_made_anew(project, offline, monkeypatch, made_venv, capfd):
    write_wheel(offline, "tinyone", "1.0")
    place = Environment(project / ".venv")
    find(project)
    place.installing.touch()  # what a killed install leaves
    leftover = place.folder / "leftover"
    leftover.touch()
    find(project)
    assert version_of(project) == "1.0"
    assert not leftover.exists() and not place.installing.exists()
    assert "interrupted" in capfd.readouterr().err


def test_a_package_that_somebody_removed_comes_back(project, offline):
    write_wheel(offline, "tinyone", "1.0")
    find(project)
    place = Environment(project / ".venv")
    command = [place.python, "-m", "pip", "uninstall", "-qy", "tinyone"]
    subprocess.run(command, check=True, capture_output=True)
    find(project)
    assert version_of(project) == "1.0"


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["interpreter", "platform"])
def test_an_environment_from_another_machine_is_made_anew(project, offline, damage):
    write_wheel(offline, "tinyone", "1.0")
    find(project)
    place = Environment(project / ".venv")
    if damage == "interpreter":
        place.python.unlink()
    else:
        stamp = json.loads(place.stamp.read_text())
        place.stamp.write_text(json.dumps({**stamp, "platform": "win-arm64"}))
    (place.folder / "leftover").touch()
    find(project)
    assert version_of(project) == "1.0"
    assert not (place.folder / "leftover").exists()


def fake_python(tmp_path: Path, output: str, monkeypatch) -> None:
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\necho '{output}' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


@pytest.mark.parametrize(
    ("output", "kind", "words"),
    [
        ("No module named venv", NoVenv, "apt install python3"),
        ("The virtual environment was not created: ensurepip is not available", NoVenv, "-venv"),
        ("OSError: [Errno 28] No space left on device", NoDisk, "disk is full"),
        ("something else", NoVenv, "something else"),
    ],
)
def test_a_python_that_makes_no_environments_is_explained(
    tmp_path, monkeypatch, output, kind, words
):
    (tmp_path / "requirements.txt").write_text("tinyone==1.0\n")
    fake_python(tmp_path, output, monkeypatch)
    with pytest.raises(kind, match=words):
        find(tmp_path)


def test_too_little_room_is_said_before_anything_is_installed(project, monkeypatch):
    monkeypatch.setattr(pip, "install", no_pip)
    usage = shutil.disk_usage(project)._replace(free=300 * 1024**2)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(NoDisk, match="300 MB are free"):
        find(project)


def test_without_a_network_one_sentence_says_so(tmp_path, monkeypatch, capfd):
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(NoNetwork, match="cannot reach its package index"):
        pip.install(Path(sys.executable), ["--dry-run", "no-such-package==1"], tmp_path / "log")
    assert "Connection refused" in (tmp_path / "log").read_text()


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "requirements.txt").write_text("tinyone==1.0\n")

    def refuse(*_: object):
        raise PermissionError(13, "Permission denied", str(tmp_path / ".venv"))

    monkeypatch.setattr(Environment, "bring_up_to_date", refuse)
    with pytest.raises(NotWritable, match=r"cannot write .*\.venv"):
        find(tmp_path)


def test_a_cuda_build_of_the_users_own_is_kept(project, offline):
    write_wheel(offline, "torch", "2.12.0+cu128")
    write_wheel(offline, "torch", "2.13.0")
    write_wheel(offline, "tinyone", "1.0")
    place = Environment(project / ".venv")
    command = [place.python, "-m", "pip", "install", "-q", "torch==2.12.0+cu128"]
    subprocess.run(command, check=True, capture_output=True)
    (project / "requirements.txt").write_text("torch==2.13.0\ntinyone==1.0\n")
    find(project)
    code = "import torch; print(torch.version)"
    kept = subprocess.run([place.python, "-c", code], capture_output=True, text=True).stdout
    assert kept.strip() == "2.12.0+cu128" and version_of(project) == "1.0"


def test_a_second_launch_waits_for_the_first_and_says_so(tmp_path):
    order: list[str] = []
    waits, held = threading.Event(), threading.Event()

    def first() -> None:
        with locked(tmp_path / "lock", lambda: None):
            held.set()
            assert waits.wait(10)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert held.wait(10)
    with locked(tmp_path / "lock", waits.set):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
