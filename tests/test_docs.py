"""The README and the repository say the same: tree, options, links, commands, scripts."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.options import Options, _fields, _names

ROOT = Path(__file__).resolve().parent.parent
READMES = [path for path in (ROOT / "README.md", ROOT / "README_zh.md") if path.exists()]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)\s]+)\)")
NOT_IN_THE_TREE = {"data", "runs", "LICENSE", "shared"}

# A command of the README -> the test that runs it.
RUN_BY = {
    "python launch.py": "test_program.py::test_the_page_is_up_quickly_and_ends_at_once",
    "python launch.py test": "test_docs.py::test_the_test_command_runs_tests",
    "python launch.py --model THUDM/chatglm3-6b": (
        "test_program_models.py::test_a_hub_id_is_downloaded_and_answers"
    ),
    "python launch.py --model /path/to/chatglm3-6b": (
        "test_program_models.py::test_a_folder_in_the_hub_layout_answers"
    ),
    "python -m glm.chat assets/tiny": "test_docs.py::test_the_terminal_chat_explains_itself",
    "python -m glm.inspect assets/tiny": "test_inspect.py::test_the_command_prints_the_screen",
    "python -m glm.convert assets/tiny tiny-native --to native": (
        "test_convert.py::test_the_command_writes_and_tells_the_verdict"
    ),
    "python -m finetune.pretrain.score": "test_docs.py::test_a_module_explains_itself",
    "bash finetune/finetune_lora.sh --help": (
        "test_docs.py::test_a_script_is_sound_and_explains_itself"
    ),
    "python -m finetune.doctor assets/data/tools_en.jsonl": (
        "test_doctor.py::test_the_shipped_samples_have_no_errors"
    ),
}


def blocks(readme: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    text = readme.read_text(encoding="utf-8")
    return [body for found, body in FENCE.findall(text) if found == language]


def commands(readme: Path) -> list[str]:
    lines = [line for block in blocks(readme, "bash") for line in block.splitlines()]
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_the_tree_names_what_is_there_and_nothing_else(readme):
    trees = [block for block in blocks(readme, "") if "launch.py " in block]
    assert len(trees) == 1
    shown = {line.split()[0].rstrip("/") for line in trees[0].splitlines() if line.strip()}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    tops = {path.partition("/")[0] for path in listed.stdout.splitlines() if "/" in path}
    folders = {top for top in tops if not top.startswith(".")} - NOT_IN_THE_TREE
    assert {name for name in shown if not (ROOT / name).exists()} == set()
    assert folders - shown == set()


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_every_command_is_run_by_a_test(readme):
    assert set(commands(readme)) == set(RUN_BY)


@pytest.mark.parametrize("where", sorted(set(RUN_BY.values())))
def test_the_tests_that_run_commands_exist(where):
    file, _, wanted = where.partition("::")
    module = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    assert wanted in {node.name for node in module.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(readme):
    text = FENCE.sub("", readme.read_text(encoding="utf-8"))
    gone = [target for target in LINK.findall(text) if not (ROOT / target.split("#")[0]).exists()]
    assert not gone


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_the_options_in_the_readme_are_the_programs(readme):
    text = readme.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `--")]
    flags = {flag for row in rows for flag in re.findall(r"--([a-z-]+)", row)}
    variables = {name for row in rows for name in re.findall(r"`([A-Z][A-Z_]+)`", row)}
    assert flags <= {name.replace("_", "-") for name in Options.__dataclass_fields__}
    assert variables <= {name for item, _ in _fields() for name in _names(item)}


def test_both_readmes_show_the_same_things():
    shown = [
        (sorted(commands(readme)), sorted(blocks(readme, "python"))) for readme in READMES
    ]  # code is the same in every language
    assert all(each[0] == shown[0][0] for each in shown)


def test_the_python_of_the_readme_runs():
    code = "\n".join(blocks(ROOT / "README.md", "python"))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr


def test_the_terminal_chat_explains_itself():
    said = "print(1)\n"
    done = subprocess.run(
        [sys.executable, "-m", "glm.chat", "assets/tiny"],
        cwd=ROOT, input=said, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "module", ["finetune.pretrain.score", "glm.chat", "glm.inspect", "glm.convert"]
)
def test_a_module_explains_itself(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 and "usage" in done.stdout.lower()


def test_the_test_command_runs_tests():
    """The whole run would run itself for ever; one file of it shows that the way is open."""
    done = subprocess.run(
        [sys.executable, "launch.py", "test", "-q", "tests/test_launch_options.py"],
        cwd=ROOT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0 and "passed" in done.stdout, done.stdout + done.stderr


def scripts() -> list[Path]:
    found = [path for path in ROOT.rglob("*.sh") if ".venv" not in path.parts]
    return [ROOT / ".ci" / "run", *sorted(found)]


@pytest.mark.parametrize("script", scripts(), ids=lambda path: path.name)
def test_a_script_is_sound_and_explains_itself(script):
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    done = subprocess.run(["bash", str(script), "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip()


def test_decisions_are_numbered_and_titled():
    records = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    numbers = [path.name[:4] for path in records]
    assert len(numbers) == len(set(numbers))
    for path in records:
        assert path.read_text(encoding="utf-8").startswith("# ")
