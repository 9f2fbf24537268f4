"""What the house rules promise and a machine can check: layers, sizes, places, dangerous calls.

The lists of exceptions may only shrink: an entry that is no longer needed fails its test.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from launcher import requirements

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("glm", "tools", "finetune", "api", "demo", "launcher", "benchmarks", "tests")
OURS = {"glm", "tools", "finetune", "api", "demo", "launcher", "launch", "tests", "benchmarks"}

# package -> the packages of ours it may import
LAYERS = {
    "glm": {"glm"},
    "tools": {"tools", "glm"},
    "finetune": {"finetune", "glm", "tools"},
    "api": {"api", "glm"},
    "demo": {"demo", "glm", "tools", "finetune"},
    "launcher": {"launcher", "api", "glm", "demo", "tools"},
}
TOOLS_MAY_USE = ("glm.messages", "glm.errors", "glm.cancel")
# The tools' specifications are data for the pre-training dialogues; running them is not.
FINETUNE_MAY_USE = ("tools", "tools.builtin")
# Until the environment is ready these may use nothing else.
STANDARD_LIBRARY_ONLY = (
    "launch.py",
    "launcher/__init__.py",
    "launcher/environment.py",
    "launcher/lock.py",
    "launcher/options.py",
    "launcher/pip.py",
    "launcher/problems.py",
    "launcher/requirements.py",
    "launcher/verbs.py",
    "api/__init__.py",
    "api/accounts.py",
    "glm/__init__.py",
    "glm/messages.py",
    "glm/errors.py",
    "glm/cancel.py",
    "glm/identity.py",
    "glm/engines/__init__.py",
    "glm/engines/base.py",
    "finetune/__init__.py",
    "finetune/run.py",
    "finetune/scripts.py",
)

# third-party module -> where it may be imported (folders end with /)
PLACES = {
    "gradio": ("demo/", "launcher/serve.py", "launcher/share.py"),
    "fastapi": ("api/",),
    "starlette": ("api/",),
    "uvicorn": ("api/", "launcher/serve.py"),
    "torch": ("glm/", "finetune/"),
    "transformers": ("glm/", "finetune/"),
    "peft": ("glm/", "finetune/"),
    "accelerate": ("glm/", "finetune/"),
    "safetensors": ("glm/", "finetune/"),
    "sentencepiece": ("glm/", "finetune/"),
    "bitsandbytes": ("glm/quantisation/quantise.py", "glm/models/int8.py", "finetune/"),
    "deepspeed": ("finetune/",),
    "tokenizers": ("glm/export/fast_tokenizer.py",),
    "gguf": ("glm/export/gguf.py",),
    "llguidance": ("glm/constrain.py",),
    "mcp": ("tools/mcp/",),
    "huggingface_hub": ("glm/checkpoint/hub.py",),
    "jupyter_client": ("tools/kernel.py",),
    "zmq": ("tools/kernel.py",),
    "psutil": (
        "finetune/training/network.py",
        "finetune/training/run_folder.py",
        "glm/memory.py",
        "tools/kernel.py",
        "tools/process.py",
        "tools/scratch.py",
        "tools/watch.py",
    ),
    "requests": (
        "launcher/share.py",
        "glm/checkpoint/modelscope.py",
        "glm/engines/remote.py",
        "tools/builtin/get_weather.py",
    ),
    "tensorboardX": ("finetune/training/tensorboard.py", "tests/"),
    "rjieba": ("finetune/metrics.py",),
    "rouge_score": ("finetune/metrics.py",),
    "nltk": ("finetune/metrics.py",),
    "wandb": ("finetune/training/reports.py",),
    "swanlab": ("finetune/training/reports.py",),
    "mdtex2html": ("glm/store/markdown.py", "demo/", "glm/store/exchange.py"),
    "latex2mathml": ("glm/store/markdown.py", "demo/", "glm/store/exchange.py"),
}

LINES, FUNCTION_LINES, PARAMETERS = 400, 60, 5
# "path::function" or "path" -> why it may be larger than the limits
TOO_LARGE: dict[str, str] = {
    "glm/models/chatglm1.py::forward": "generate, PEFT and Trainer look for these by their names",
}

SPECIAL_TOKEN = re.compile(r"<\|(system|user|assistant|observation|endoftext)\|>|\[gMASK\]|<sop>")
SPECIAL_TOKEN_PLACES = ("glm/dialects/", "finetune/pretrain/", "tests/")
MAY_NAME_SPECIAL_TOKENS = {
    "glm/tokenizer.py": "ChatGLM3 keeps them outside its sentencepiece model, in this order",
}

DANGEROUS = {
    r"\beval\(": "eval of a text",
    r"\bexec\(": "exec of a text",
    r"shell\s*=\s*True": "a shell",
    r"trust_remote_code\s*=\s*True": "code from a checkpoint",
    r"weights_only\s*=\s*False": "unpickling code",
    r"\bpickle\.loads?\(": "unpickling code",
    r"\bos\.system\(": "a shell",
}
NOT_DANGEROUS = re.compile(r"\.eval\(\)|literal_eval\(|def (eval|exec)|self\.eval\(")

# Each is imported alone, and brings neither torch nor transformers.
WITHOUT_TORCH = (
    "glm", "glm.app", "glm.manager", "glm.store", "glm.chat", "glm.loop", "glm.loop.replay",
    "glm.dialects", "glm.engines.fake",
    "glm.adapters.sources", "glm.adapters.card",
    "finetune.config", "finetune.run", "finetune.inference", "finetune.options.page",
    "finetune.doctor", "finetune.convert", "finetune.formats", "finetune.files.rows",
    "finetune.metrics", "finetune.evaluate", "finetune.probe", "finetune.training.resume",
    "tools.builtin", "tools.workshop", "api.server", "api.access", "demo.app",
)  # fmt: skip

VAGUE_NAMES = {"utils", "common", "helpers", "misc", "util", "helper", "lib"}


@cache
def files(*folders: str) -> tuple[Path, ...]:
    """The Python files of these folders, and launch.py; what git does not track yet counts."""
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return tuple(found + ([ROOT / "launch.py"] if folders == PACKAGES else []))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    """Dotted names of what a file imports, wherever in the file."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(path: str, places: tuple[str, ...]) -> bool:
    return any(path.startswith(p) if p.endswith("/") else path == p for p in places)


def test_imports_point_down_only():
    wrong = []
    for package, allowed in LAYERS.items():
        for path in files(package):
            for target in imports(path):
                top = target.partition(".")[0]
                if top in OURS and top not in allowed:
                    wrong.append(f"{name(path)} imports {target}")
    assert not wrong, "\n".join(wrong)


def test_tools_know_only_the_values_and_the_errors_of_the_model_side():
    wrong = [
        f"{name(path)} imports {target}"
        for path in files("tools")
        for target in imports(path)
        if target.startswith("glm") and target != "glm" and not target.startswith(TOOLS_MAY_USE)
    ]
    assert not wrong, "\n".join(wrong)


def test_training_knows_the_tools_by_their_specifications_only():
    wrong = [
        f"{name(path)} imports {target}"
        for path in files("finetune")
        for target in imports(path)
        if target.startswith("tools") and not target.startswith(FINETUNE_MAY_USE)
    ]
    assert not wrong, "\n".join(wrong)


def test_each_library_is_imported_only_in_its_place():
    wrong = [
        f"{name(path)} imports {target}"
        for path in files(
            *(package for package in PACKAGES if package not in ("tests", "benchmarks"))
        )
        for target in imports(path)
        if (places := PLACES.get(target.partition(".")[0])) and not within(name(path), places)
    ]
    assert not wrong, "\n".join(wrong)


def test_what_runs_before_the_environment_is_ready_uses_the_standard_library():
    wrong = [
        f"{path} imports {target}"
        for path in STANDARD_LIBRARY_ONLY
        for target in top_level_imports(ROOT / path)
        if target.partition(".")[0] not in sys.stdlib_module_names | OURS
    ]
    assert not wrong, "\n".join(wrong)


def top_level_imports(path: Path) -> Iterator[str]:
    """Imports that run with the file, not those inside functions."""
    for node in tree(path).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_every_library_that_is_imported_is_a_pinned_dependency():
    pinned = {item.name for item in requirements.read([ROOT / "requirements.txt"])}
    if sys.platform != "linux":
        pinned.add("deepspeed")
    by_module = {
        "yaml": "pyyaml",
        "starlette": "fastapi",
        "latex2mathml": "mdtex2html",
        "markdown_it": "markdown-it-py",
        "zmq": "pyzmq",
    }
    optional = {"msvcrt", "cpm_kernels", "pyarrow", "wandb", "swanlab"}
    wrong = set()
    for path in files("glm", "tools", "finetune", "api", "demo", "launcher"):
        for target in imports(path):
            top = target.partition(".")[0]
            package = requirements.normal(by_module.get(top, top))
            known = top in sys.stdlib_module_names | OURS | optional or package in pinned
            if not known:
                wrong.add(f"{name(path)} imports {top}, which requirements.txt does not pin")
    assert not wrong, "\n".join(sorted(wrong))


def test_files_and_functions_stay_small():
    too_large = {place: why for place, why in sizes() if place not in TOO_LARGE}
    assert not too_large, "\n".join(f"{place}: {why}" for place, why in too_large.items())


def test_the_list_of_large_things_only_shrinks():
    still = {place for place, _ in sizes()}
    assert not set(TOO_LARGE) - still, "remove these from TOO_LARGE"


def sizes() -> Iterator[tuple[str, str]]:
    """What is over a limit, and by how much."""
    for path in files(*PACKAGES):
        lines = path.read_text(encoding="utf-8").count("\n") + 1
        if lines > LINES:
            yield name(path), f"{lines} lines"
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield from function_sizes(path, node)


def function_sizes(
    path: Path, node: ast.FunctionDef | ast.AsyncFunctionDef
) -> Iterator[tuple[str, str]]:
    length = (node.end_lineno or node.lineno) - node.lineno + 1
    if length > FUNCTION_LINES:
        yield f"{name(path)}::{node.name}", f"{length} lines"
    positional = [*node.args.posonlyargs, *node.args.args]
    if positional and positional[0].arg in ("self", "cls"):
        positional = positional[1:]
    count = len(positional) + len(node.args.kwonlyargs)
    fixture_or_handler = name(path).startswith(("tests/", "tools/builtin/"))
    if count > PARAMETERS and not fixture_or_handler:
        yield f"{name(path)}::{node.name}", f"{count} parameters"


def test_file_names_say_what_is_inside():
    vague = [name(path) for path in files(*PACKAGES) if path.stem in VAGUE_NAMES]
    assert not vague


def test_special_tokens_are_written_in_the_dialects_only():
    found = {
        name(path)
        for path in files(*PACKAGES)
        if not within(name(path), SPECIAL_TOKEN_PLACES) and writes_special_token(path)
    }
    assert found == set(MAY_NAME_SPECIAL_TOKENS)


def writes_special_token(path: Path) -> bool:
    """In a string that is no docstring."""
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree(path))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return any(
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in documentation
        and SPECIAL_TOKEN.search(node.value)
        for node in ast.walk(tree(path))
    )


def test_nothing_runs_text_as_code():
    wrong = []
    for path in files(*(package for package in PACKAGES if package != "tests")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            code = NOT_DANGEROUS.sub("", line.partition("#")[0])
            wrong += [
                f"{name(path)}:{number}: {why}"
                for pattern, why in DANGEROUS.items()
                if re.search(pattern, code) and '"' not in code[: re.search(pattern, code).start()]
            ]
    assert not wrong, "\n".join(wrong)


def test_no_error_is_swallowed_silently():
    wrong = []
    for path in files(*(package for package in PACKAGES if package != "tests")):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ExceptHandler):
                broad = node.type is None or (
                    isinstance(node.type, ast.Name)
                    and node.type.id in ("Exception", "BaseException")
                )
                only_pass = len(node.body) == 1 and isinstance(node.body[0], ast.Pass)
                if node.type is None or (broad and only_pass):
                    wrong.append(f"{name(path)}:{node.lineno}")
    assert not wrong, "\n".join(wrong)


def test_every_module_says_what_it_is():
    silent = [
        name(path)
        for path in files(*(package for package in PACKAGES if package != "tests"))
        if path.read_text(encoding="utf-8").strip() and not ast.get_docstring(tree(path))
    ]
    assert not silent


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_a_face_comes_without_torch(module):
    code = (
        f"import {module}, sys; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or f"import {module} brings torch or transformers"


def test_both_languages_have_the_same_words():
    folder = ROOT / "assets" / "i18n"
    chinese, english = (json.loads((folder / f"{lang}.json").read_text()) for lang in ("zh", "en"))
    assert set(chinese) == set(english)
    login = json.loads((folder / "login.json").read_text(encoding="utf-8"))
    assert set(login["zh"]) == set(login["en"])


def test_both_languages_fill_in_the_same_values():
    folder = ROOT / "assets" / "i18n"
    chinese, english = (json.loads((folder / f"{lang}.json").read_text()) for lang in ("zh", "en"))
    gaps = re.compile(r"\{(\w*)\}")
    wrong = [
        key
        for key in set(chinese) & set(english)
        if set(gaps.findall(str(chinese[key]))) != set(gaps.findall(str(english[key])))
    ]
    assert not wrong


def test_no_file_of_code_is_half_a_megabyte():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    ).stdout.splitlines()
    sizes = {path: (ROOT / path).stat().st_size for path in listed if (ROOT / path).exists()}
    assert not [p for p, s in sizes.items() if s > 500_000 and not p.startswith("assets/")]
