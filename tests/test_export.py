"""Exported folders hold the same model; merging is exact; nothing half or wrong ever appears."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GlmForCausalLM

from glm.checkpoint.recognise import recognise
from glm.errors import BadRequest, CheckpointError
from glm.export import TARGETS, Wanted, compare, export, hub, native
from glm.export.folder import FORGOTTEN, appearing, inside, place
from glm.export.source import Source
from glm.export.tensors import Weights, write_shards
from glm.load import load_model
from tests.made_adapters import lora, prefix, pretend
from tests.shared_files import CHATGLM3_TOKENIZER, GOLDEN, ROOT, TINY
from tests.tiny_checkpoint import write_checkpoint

FILE = "model.safetensors"
IDS = torch.tensor([[5, 42, 79, 116, 153, 190]])


def checkpoint(path, **config):
    """A random model with the small tokenizer of the embedded one."""
    write_checkpoint(path, vocabulary=6784, **config)
    shutil.copy(TINY / "tokenizer.model", path / "tokenizer.model")
    return path


@pytest.fixture
def folder(tmp_path):
    return checkpoint(tmp_path / "chatglm3-tiny")


@pytest.fixture
def open_lora(monkeypatch):
    """`--adapter NAME` opens a LoRA (or a DoRA, or a prefix) made for the model."""

    def opened(path, info, config, alpha=None):
        if path.name == "dress":
            return prefix(config.num_hidden_layers, config.num_key_value_heads, config.head_dim)
        return lora(Source(info), dora=path.name == "dora")

    pretend(monkeypatch, "opening", open_adapter=opened)
    return opened


def logits(model, ids=IDS):
    with torch.inference_mode():
        return model(input_ids=ids).logits.float()


def plain(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def test_the_hub_layout_is_written_as_it_was_read(tmp_path):
    written = export(Wanted(TINY, tmp_path / "out", "hub"))
    ours, theirs = load_file(TINY / "model.safetensors"), load_file(tmp_path / "out" / FILE)
    assert written.verdict.logits == 0
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_hub_config_keeps_its_keys_and_loses_what_names_code(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling_chatglm.ChatGLM"}
    (folder / "config.json").write_text(json.dumps(config))
    export(Wanted(folder, tmp_path / "out", "hub"))
    found = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "auto_map" not in found
    assert all(found[key] == value for key, value in config.items() if key != "auto_map")


def test_transformers_opens_the_native_folder_and_answers_the_same(folder, tmp_path):
    written = export(Wanted(folder, tmp_path / "out", "native"))
    model = plain(tmp_path / "out")
    assert type(model) is GlmForCausalLM
    assert torch.equal(logits(model), logits(load_model(recognise(folder), "cpu", "float32")))
    assert written.verdict.tensors == len(model.state_dict())


@pytest.mark.parametrize("name", ["chatglm3", "chatglm3-32k", "chatglm3-bin-fp16"])
def test_a_native_folder_answers_as_the_official_code(name, tmp_path):
    if not GOLDEN.exists():
        return
    want = load_file(GOLDEN / "models" / "expected" / f"{name}.safetensors")
    source = GOLDEN / "models" / name
    export(Wanted(source, tmp_path / "out", "native", tokenizer=CHATGLM3_TOKENIZER))
    difference = (logits(plain(tmp_path / "out"), want["input_ids"]) - want["logits"]).abs().max()
    assert difference <= 1e-4


def test_positions_divided_and_bases_scaled_stay_so(tmp_path):
    for name, ratio in (("chatglm2-6b-32k", 4), ("chatglm3-6b-32k", 50)):
        folder = checkpoint(tmp_path / name, rope_ratio=ratio)
        ours = logits(load_model(recognise(folder), "cpu", "float32"))
        export(Wanted(folder, tmp_path / f"{name}-native", "native"))
        export(Wanted(folder, tmp_path / f"{name}-hub", "hub"))
        again = load_model(recognise(tmp_path / f"{name}-hub"), "cpu", "float32")
        assert torch.equal(logits(plain(tmp_path / f"{name}-native")), ours)
        assert torch.equal(logits(again), ours)


def test_a_renamed_chatglm2_is_still_one(tmp_path):
    folder = checkpoint(tmp_path / "chatglm2-6b")
    export(Wanted(folder, tmp_path / "mine", "hub"))
    assert recognise(tmp_path / "mine").family == "ChatGLM2"


@pytest.mark.parametrize("to", ["hub", "native"])
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_a_merged_adapter_answers_as_beside_the_model(folder, tmp_path, open_lora, to, kind):
    source = Source(recognise(folder))
    adapter = lora(source, dora=kind == "dora")
    want = compare._logits(source, load_model(source.info, "cpu", "float32"), adapter.lora)
    written = export(Wanted(folder, tmp_path / "out", to, adapter=kind))
    out = tmp_path / "out"
    model = plain(out) if to == "native" else load_model(recognise(out), "cpu", "float32")
    found = compare._logits(source, model, {})
    base = compare._logits(source, load_model(source.info, "cpu", "float32"), {})
    assert (found - want).abs().max() <= written.verdict.tolerance < (base - want).abs().max() / 10


def test_a_merge_that_is_wrong_is_noticed_and_nothing_is_kept(
    folder, tmp_path, open_lora, monkeypatch
):
    def twice(weight, part, name):
        return weight.float() + 2 * part.scale * (part.b @ part.a)

    monkeypatch.setattr("glm.export.source.merged", twice)
    with pytest.raises(CheckpointError, match="answers differently"):
        export(Wanted(folder, tmp_path / "out", "native", adapter="lora"))
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_a_tensor_that_is_written_wrong_is_noticed(folder, tmp_path):
    source = Source(recognise(folder))
    written = tmp_path / "out"
    written.mkdir()
    native.write(source, written, lambda text, part: None)
    data = bytearray((written / FILE).read_bytes())
    data[-1] ^= 1
    (written / FILE).write_bytes(data)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight was not written as it is"):
        native.check(source, written, lambda text, part: None)


@pytest.mark.parametrize(
    ("name", "ratio", "family"),
    [("m", 1, "ChatGLM3"), ("chatglm3-6b-32k", 50, "ChatGLM3"), ("chatglm2-6b-32k", 4, "ChatGLM2")],
)
def test_a_native_folder_opens_here_and_becomes_the_original_again(tmp_path, name, ratio, family):
    first = checkpoint(tmp_path / name, rope_ratio=ratio)
    export(Wanted(first, tmp_path / "native", "native"))
    info = recognise(tmp_path / "native")
    assert (info.family, info.arch, info.context) == (family, "native", 256)
    export(Wanted(tmp_path / "native", tmp_path / "again", "hub"))
    ours, theirs = (load_file(folder / FILE) for folder in (first, tmp_path / "again"))
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    before, after = (recognise(folder).config for folder in (first, tmp_path / "again"))
    for key in ("num_layers", "padded_vocab_size", "seq_length", "kv_channels", "rmsnorm"):
        assert before[key] == after[key]
    assert (after.get("rope_ratio", 1), family) == (
        ratio,
        recognise(first).family.partition("-")[0],
    )
    again = logits(load_model(recognise(tmp_path / "again"), "cpu", "float32"))
    assert torch.equal(again, logits(load_model(recognise(first), "cpu", "float32")))


def test_a_native_folder_takes_an_adapter_and_stays_native(folder, tmp_path, open_lora):
    export(Wanted(folder, tmp_path / "one", "native"))
    export(Wanted(tmp_path / "one", tmp_path / "two", "native", adapter="lora"))
    export(Wanted(folder, tmp_path / "direct", "native", adapter="lora"))
    assert torch.equal(logits(plain(tmp_path / "two")), logits(plain(tmp_path / "direct")))
    tokens = [(tmp_path / name / "tokenizer.json").read_bytes() for name in ("two", "direct")]
    assert tokens[0] == tokens[1]


def test_the_dtype_can_be_chosen(folder, tmp_path):
    export(Wanted(folder, tmp_path / "out", "hub", dtype="fp16"))
    assert {t.dtype for t in load_file(tmp_path / "out" / FILE).values()} == {torch.float16}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "float16"


def test_large_models_are_written_in_shards(folder, tmp_path):
    source = Source(recognise(folder))
    plan = list(hub.plan(source))
    write_shards(plan, tmp_path, lambda done, of: None, shard=200_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 2 and set(index["weight_map"].values()) == {s.name for s in shards}
    assert index["metadata"]["total_size"] == source.bytes()
    again = Weights(shards)
    assert all(compare.same(item.value(), again.rows(item.name)) for item in plan)


def test_what_is_read_at_once_is_one_tensor(folder, tmp_path, monkeypatch):
    """The largest matrix and its copies, never the model."""
    held, most = [0], [0]
    rows = Weights.rows

    def counted(self, name, start=0, stop=None):
        out = rows(self, name, start, stop)
        held[0] += 1
        most[0] = max(most[0], held[0])
        import weakref

        weakref.finalize(out, lambda: held.__setitem__(0, held[0] - 1))
        return out

    monkeypatch.setattr(Weights, "rows", counted)
    source = Source(recognise(folder))
    write_shards(list(hub.plan(source)), tmp_path, lambda done, of: None)
    assert most[0] <= 4  # q, k and v, and the last one written


# ---- a folder appears whole or not at all --------------------------------------------------


def test_a_kill_leaves_no_half_folder(tmp_path):
    code = (
        "import os, signal\n"
        "from glm.export import Wanted, export\n"
        "def kill(text, part):\n"
        "    if text == 'writing' and part > 0.3: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"export(Wanted({str(TINY)!r}, {str(tmp_path / 'out')!r}, 'hub'), kill)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    left = list(tmp_path.iterdir())
    assert [path.name.startswith(".out.partial-") for path in left] == [True]
    old = left[0]
    for file in [*old.rglob("*"), old]:
        os.utime(file, (0, 0))
    export(Wanted(TINY, tmp_path / "out", "hub"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_another_export_that_runs_is_left_alone(tmp_path):
    with pytest.raises(CheckpointError, match="has come to exist meanwhile"):
        with appearing(tmp_path / "out") as first:
            with appearing(tmp_path / "out") as second:
                (second / "mine").touch()
                assert first.exists() and first != second
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]
    assert FORGOTTEN >= 600


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("glm.export.hub.write_shards", full)
    with pytest.raises(CheckpointError, match=r"the disk is full, .* GB free"):
        export(Wanted(TINY, tmp_path / "out", "hub"))
    assert not list(tmp_path.iterdir())


def test_too_little_room_is_told_before_anything_is_written(tmp_path):
    with pytest.raises(CheckpointError, match=r"0 GB needed, .* GB free"):
        with appearing(tmp_path / "out", bytes_needed=10**18):
            raise AssertionError
    assert not list(tmp_path.iterdir())


def test_an_existing_target_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("out", "link"):
        with pytest.raises(CheckpointError, match="exists already"):
            export(Wanted(TINY, tmp_path / name, "hub"))
    with pytest.raises(CheckpointError, match="no folder at"):
        place(tmp_path / "nowhere" / "out")


BAD = ["..", ".", "", "../x", "/etc/x", "a\0b", "CON", "nul.txt", "x" * 101, "-rf", "$(x)", "a;b"]


@pytest.mark.parametrize("name", [*BAD, "a\nb", ".hidden", "a/b", "a\\b", "end.", "end ", "~"])
def test_names_that_are_no_plain_folder_are_refused(tmp_path, name):
    with pytest.raises(BadRequest, match="is no name for a folder"):
        inside(tmp_path, name)
    assert not list(tmp_path.iterdir())


def test_good_names_are_taken(tmp_path):
    for name in ("my model", "chatglm3-6b_v1.5", "我的模型", "7b"):
        assert inside(tmp_path, name).parent == tmp_path


# ---- what cannot be asked ------------------------------------------------------------------


def test_refusals_are_sentences(folder, tmp_path, open_lora):
    out = tmp_path / "out"
    cases = [
        (Wanted(folder, out, "onnx"), "no target 'onnx'; available: hub, native"),
        (Wanted(folder, out, "hub", dtype="q8_0"), "dtype 'q8_0' is not hub's; allowed: auto"),
        (Wanted(folder, out, "peft"), "peft writes an adapter alone; name it"),
        (Wanted(folder, out, "hub", adapter="dress"), "dress is a prefix, which no weights"),
        (Wanted(folder, out, "ptuning", adapter="lora"), "poet is no prefix; export it as peft"),
        (Wanted(tmp_path / "no", out, "hub"), "no folder at"),
    ]
    for wanted, sentence in cases:
        with pytest.raises((BadRequest, CheckpointError), match=sentence):
            export(wanted)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_an_adapter_of_another_model_is_refused_by_name(folder):
    info = recognise(folder)
    other = lora(Source(info))
    part = other.lora["model.layers.0.self_attn.q_proj"]
    wrong = {"model.layers.0.mlp.down_proj": part}
    with pytest.raises(CheckpointError, match=r"down_proj\.weight is 64 x 64, the weight 64 x 128"):
        Source(info, type(other)(other.info, wrong)).tensor("model.layers.0.mlp.down_proj.weight")
    far = {"model.layers.9.self_attn.q_proj": part}
    with pytest.raises(CheckpointError, match=r"changes model\.layers\.9\.self_attn\.q_proj"):
        Source(info, type(other)(other.info, far))


# ---- adapters alone ------------------------------------------------------------------------


def test_an_adapter_alone_is_written_and_compared(folder, tmp_path, open_lora, monkeypatch):
    seen = {}

    def save(adapter, target, base):
        seen["lora"] = (adapter.info.name, base)
        (target / "adapter_config.json").write_text("{}")

    def save_prefix(adapter, file):
        seen["prefix"] = file.name
        file.write_bytes(b"x")

    def opened(path, *rest):
        return open_lora(Path("dress" if "dress" in path.name else "lora"), *rest)

    saves = {"save_peft_lora": save, "save_official_prefix": save_prefix}
    pretend(monkeypatch, "saving", save_peft_prefix=None, **saves)
    pretend(monkeypatch, "opening", open_adapter=opened)
    pretend(monkeypatch, "card", Card=lambda *known: known[:0], write_card=None)
    written = export(Wanted(folder, tmp_path / "poet", "peft", adapter="lora"))
    assert written.verdict.tensors == 2 * len(lora(Source(recognise(folder))).lora)
    assert (
        export(Wanted(folder, tmp_path / "dress", "ptuning", adapter="dress")).verdict.tensors == 2
    )
    assert seen == {"lora": ("poet", folder.name), "prefix": "pytorch_model.bin"}
    assert json.loads((tmp_path / "dress" / "config.json").read_text())["pre_seq_len"] == 3


def test_every_target_is_a_file_with_write_and_check():
    import importlib

    for name, target in TARGETS.items():
        module = importlib.import_module(target.module)
        assert target.module == f"glm.export.{name}" and target.title
        assert callable(module.write) and callable(module.check)
