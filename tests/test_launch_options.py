"""Options of launch.py: command line, environment, checks; requirements; what pip says."""

from __future__ import annotations

import ast
import io
import time
from pathlib import Path

import pytest

import launch
from launcher import options, pip, requirements, verbs
from launcher.options import Options, read
from launcher.problems import BadOption, NoDisk, NoNetwork, PipFailed
from launcher.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent


# ---- launch.py itself ----


def test_an_old_python_can_parse_launch_py():
    ast.parse((ROOT / "launch.py").read_text(encoding="utf-8"), feature_version=(3, 6))


def test_an_old_python_gets_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(launch, "MINIMUM", (99, 0))
    assert launch.main([]) == launch.PYTHON_TOO_OLD
    said = capsys.readouterr().err
    assert "needs Python 99.0 or newer" in said and said.count("\n") == 1


# ---- options ----


@pytest.mark.parametrize(
    ("environ", "field", "value"),
    [
        ({"GRADIO_SERVER_NAME": "0.0.0.0"}, "host", "0.0.0.0"),
        ({"GRADIO_SERVER_PORT": "8000"}, "port", 8000),
        ({"GRADIO_SHARE": "True"}, "share", True),
        ({"GRADIO_ROOT_PATH": "/glm"}, "root_path", "/glm"),
        ({"MODEL_PATH": "/m"}, "model", "/m"),
        ({"TOKENIZER_PATH": "/t"}, "tokenizer", "/t"),
        ({"API_KEY": "k"}, "api_key", ("k",)),
        ({"GLM_AUTH": "a:b,c:d"}, "auth", ("a:b", "c:d")),
        ({"GLM_LISTEN": "1"}, "listen", True),
        ({"GLM_LISTEN": "no"}, "listen", False),
        ({"GLM_DATA_DIR": "/d"}, "data_dir", "/d"),
        ({"GLM_DEVICE": "cpu", "GLM_DTYPE": ""}, "device", "cpu"),
        ({"GLM_INTERPRETER": "off"}, "interpreter", "off"),
        ({"QUANTIZATION_BIT": "4"}, "quantization_bit", "4"),
        ({"GLM_QUANTIZATION_BIT": "8", "QUANTIZATION_BIT": "4"}, "quantization_bit", "8"),
    ],
)
def test_an_option_can_be_an_environment_variable(environ, field, value):
    assert getattr(read([], environ), field) == value


def test_the_command_line_wins_over_the_environment():
    environ = {"GRADIO_SERVER_PORT": "1", "GLM_PORT": "2", "GLM_SHARE": "1"}
    found = read(["--port", "3", "--no-share"], environ)
    assert (found.port, found.share) == (3, False)


def test_our_own_name_wins_over_a_name_other_tools_use():
    assert read([], {"GRADIO_SERVER_PORT": "1", "GLM_PORT": "2"}).port == 2


@pytest.mark.parametrize(
    ("words", "bits"),
    [
        ([], None),
        (["--quantization-bit", "4"], 4),
        (["--quantization_bit", "8"], 8),  # as the family's scripts spell it
        (["--quantization_bit", "8", "--quantization-bit=none"], None),
    ],
)
def test_the_bits_of_the_weights_are_a_number_or_none(words, bits):
    assert read(words, {}).bits == bits


def test_other_widths_are_refused_with_what_there_is():
    with pytest.raises(BadOption, match="--quantization-bit is '3'; allowed: none, 8, 4"):
        read(["--quantization_bit", "3"], {})


def test_all_wrong_values_are_named_at_once():
    with pytest.raises(BadOption) as caught:
        given = ["--port", "99999", "--lang", "fr", "--interpreter", "docker"]
        read(given, {"GRADIO_SHARE": "perhaps"})
    sentence = str(caught.value)
    assert "--port is '99999'" in sentence and "1 to 65535" in sentence
    assert "--lang is 'fr'; allowed: auto, zh, en" in sentence
    assert "--interpreter is 'docker'; allowed: auto, bubblewrap, landlock, none, off" in sentence
    assert "GRADIO_SHARE is 'perhaps'" in sentence


def test_an_option_that_is_none_ends_the_program(capsys):
    with pytest.raises(SystemExit) as caught:
        read(["--prot", "1"], {})
    assert caught.value.code == 2
    assert "--prot" in capsys.readouterr().err


def test_every_option_is_explained_with_its_variables():
    text = " ".join(options._parser().format_help().split())
    for name in Options.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in text
        assert f"GLM_{name.upper()}" in text


@pytest.mark.parametrize(
    ("words", "address", "public"),
    [
        ([], "127.0.0.1", False),
        (["--listen"], "0.0.0.0", True),
        (["--listen", "--host", "192.168.1.2"], "192.168.1.2", True),
        (["--host", "::1"], "::1", False),
        (["--host", "0.0.0.0"], "0.0.0.0", True),
        (["--share"], "127.0.0.1", True),
        (["--root-path", "/glm"], "127.0.0.1", True),
        (["--allow-host", "glm.example"], "127.0.0.1", True),
    ],
)
def test_whoever_others_can_reach_is_public(words, address, public):
    found = read(words, {})
    assert (found.address, found.public) == (address, public)


def test_an_unknown_word_is_no_verb(capsys):
    with pytest.raises(SystemExit):
        verbs.run(["tset"])
    assert "tset" in capsys.readouterr().err


def test_the_tests_run_on_several_cores_unless_slow_ones_are_asked_for(monkeypatch):
    ran = []
    monkeypatch.setattr(verbs, "_in_environment", lambda words: ran.append(words) or 0)
    assert verbs.run(["test", "-q"]) == verbs.run(["test", "--slow"]) == 0
    assert ran == [["pytest", *verbs.PARALLEL, "-q"], ["pytest", "--slow"]]


def test_a_password_can_be_hashed_from_a_pipe(monkeypatch, capsys):
    from api.accounts import password_matches

    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse\n"))
    assert verbs.run(["hash-password", "ann"]) == 0
    name, _, stored = capsys.readouterr().out.strip().partition(":")
    assert name == "ann" and password_matches("correct horse", stored)


# ---- requirements ----


@pytest.mark.parametrize(
    ("name", "wanted", "installed", "met"),
    [
        ("torch", "2.13.0", "2.13.0", True),
        ("torch", "2.13.0", "2.13.0+cpu", True),
        ("torch", "2.13.0", "2.11.1+cu128", True),
        ("torch", "2.13.0", "2.10.0", True),
        ("torch", "2.13.0", "2.9.1+cu128", False),
        ("torch", "2.13.0", "3.0.0", False),
        ("torch", "2.13.0", "2.14.0.dev20260101+cu130", False),
        ("torch", "2.13.0", None, False),
        ("numpy", "2.4.6", "2.4.6", True),
        ("numpy", "2.4.6", "2.4.6+mkl", True),
        ("numpy", "2.4.6", "2.4.7", False),
        ("numpy", "2.4.6", "2.4.60", False),
        ("numpy", "2.4.6+mkl", "2.4.6", False),
    ],
)
def test_what_satisfies_a_pin(name, wanted, installed, met):
    assert Requirement(name, wanted).met_by(installed) is met


def test_a_requirements_file_is_read_for_this_platform(tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text(
        "# a comment\nHuggingface.Hub==1.0  # why\n\n"
        'only_here==1; sys_platform != "nowhere"\nnot_here==1; sys_platform == "nowhere"\n'
    )
    assert [item.name for item in requirements.read([file])] == ["huggingface-hub", "only-here"]


def test_a_line_that_is_no_pin_is_named(tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text("a==1\nb>=2\n")
    with pytest.raises(ValueError, match=r"requirements\.txt line 2"):
        requirements.read([file])


def test_the_design_card_is_in_the_requirements():
    card = "torch transformers peft sentencepiece gradio mdtex2html accelerate deepspeed requests"
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==")[0] for line in lines if line and not line.startswith("#")]
    assert pins[0] == "torch" and "torch==2.13.0" in lines
    assert set(card.split()) <= set(pins)


def test_line_endings_do_not_make_another_file(tmp_path):
    (tmp_path / "a").write_bytes(b"x==1\ny==2\n")
    (tmp_path / "b").write_bytes(b"x==1\r\ny==2\r\n")
    assert requirements.digest(tmp_path / "a") == requirements.digest(tmp_path / "b")


# ---- what pip says ----


@pytest.mark.parametrize(
    ("output", "kind", "words"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
         NoDisk, "disk ran full"),
        ("WARNING: Retrying: NewConnectionError('Failed to establish a new connection: "
         "[Errno -2] Name or service not known')\nERROR: No matching distribution found for torch",
         NoNetwork, "mirror"),
        ("ERROR: Could not find a version that satisfies the requirement torch==2.13.0\nERROR: No",
         PipFailed, "Could not find a version that satisfies the requirement torch==2.13.0"),
        ("Killed", PipFailed, "Killed"),
        ("", PipFailed, "no output"),
    ],
)  # fmt: skip
def test_a_failed_install_is_explained_in_one_sentence(output, kind, words):
    problem = pip.explain(output.splitlines(), Path("install.log"))
    assert type(problem) is kind
    assert words in str(problem) and "\n" not in str(problem)


def test_progress_names_what_is_fetched():
    out = io.StringIO()
    progress = pip.Progress(out)
    for line in (
        "Looking in indexes: x",
        "Collecting torch==2.13.0 (from -r requirements.txt (line 1))",
        "  Downloading x",
        "Downloading https://example/torch-2.13.0-cp311-cp311-linux_x86_64.whl (216.1 MB)",
        "Installing collected packages: a, b, c",
    ):
        progress.line(line)
    progress.close()
    assert out.getvalue().splitlines() == [
        "  package 1: downloading torch-2.13.0 (216.1 MB)",
        "  unpacking 3 packages (about a minute)",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_progress_is_one_line_with_a_clock_that_goes_away():
    out = Terminal()
    progress = pip.Progress(out, clock=lambda: 0.0)
    progress.line("Processing /wheels/torch-2.13.0-cp311.whl (from -r requirements.txt (line 1))")
    end = time.monotonic() + 10
    while "torch" not in out.getvalue() and time.monotonic() < end:
        time.sleep(0.02)
    progress.close()
    assert "0:00  package 1: torch-2.13.0-cp311.whl" in out.getvalue()
    assert "\n" not in out.getvalue() and out.getvalue().endswith("\r\x1b[K")
