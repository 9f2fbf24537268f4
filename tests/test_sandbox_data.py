"""What programs in the sandbox are shown: never the data folder, always the Python they run on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools import sandbox
from tools.sandbox import Job


@pytest.mark.parametrize("kind", ["bubblewrap", "landlock"])
def test_a_data_folder_among_the_files_of_python_is_refused(monkeypatch, tmp_path, kind):
    monkeypatch.setattr(sandbox, "why_not", lambda _: "")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    for data in (tmp_path / "venv" / "data", Path("/usr/share/data")):
        found = sandbox.probe(kind, data=data)
        assert found.kind == "off" and "the data folder lies among" in found.sentence
    assert sandbox.probe(kind, data=tmp_path / "data").kind == kind


def test_a_program_below_tmp_is_not_hidden_by_the_empty_tmp_of_the_sandbox(tmp_path, monkeypatch):
    place = Path("/tmp/somewhere/program/.venv")
    monkeypatch.setattr(sandbox, "pythons_folders", lambda: (place,))
    line = sandbox.bubblewrap(Job(("true",), tmp_path), None)
    hidden = next(i for i, word in enumerate(line) if line[i - 1 : i + 1] == ["--tmpfs", "/tmp"])
    assert hidden < line.index(str(place))
