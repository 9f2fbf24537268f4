"""Adapters of the official code and of PEFT, merged or written alone: the official answers stay."""

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from glm.adapters.opening import open_adapter
from glm.checkpoint.recognise import recognise
from glm.errors import CheckpointError
from glm.export import Wanted, export
from glm.export.source import Source, model_config
from glm.inspect import inspect
from glm.load import load_model
from tests.made_adapters import lora, pretend
from tests.shared_files import CHATGLM3_TOKENIZER, GOLDEN, ICE_TEXT

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
MODELS = GOLDEN / "models"
LORAS = ["lora-qkv", "lora-all-rslora", "lora-dora", "lora-compiled", "lora-pt"]
V1 = ("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h")
ALPHA = 32.0  # what the bare file was trained with; it does not say so


def expected(name):
    return load_file(MODELS / "expected" / f"{name}.safetensors")


def wanted(folder, to, adapter, **options):
    alpha = ALPHA if adapter == "lora-pt" else None
    return Wanted(
        MODELS / "chatglm3", folder, to, MODELS / adapter, alpha=alpha,
        tokenizer=CHATGLM3_TOKENIZER, **options,
    )  # fmt: skip


@pytest.mark.parametrize("name", LORAS)
@pytest.mark.parametrize("to", ["hub", "native"])
def test_a_merged_model_answers_as_the_official_code_with_the_adapter(tmp_path, name, to):
    if not GOLDEN.exists():
        return
    out, want = tmp_path / "out", expected(name)
    written = export(wanted(out, to, name))
    if to == "native":
        model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    else:
        model = load_model(recognise(out), "cpu", "float32")
    with torch.inference_mode():
        logits = model(input_ids=want["input_ids"]).logits
    assert (logits - want["logits"]).abs().max() <= 1e-3
    assert written.verdict.logits <= written.verdict.tolerance


@pytest.mark.parametrize("name", LORAS)
def test_a_peft_folder_of_it_answers_the_same_in_peft(tmp_path, name):
    if not GOLDEN.exists():
        return
    out, want = tmp_path / "out", expected(name)
    export(wanted(out, "peft", name))
    info = recognise(MODELS / "chatglm3", CHATGLM3_TOKENIZER)
    model = PeftModel.from_pretrained(load_model(info, "cpu", "float32"), out).eval()
    with torch.inference_mode():
        logits = model(input_ids=want["input_ids"]).logits
    assert (logits - want["logits"]).abs().max() <= 1e-3
    report = inspect(out)
    assert report.kind == "adapter" and not report.faults and dict(report.facts)["rank"]


@pytest.mark.parametrize("name", ["ptuning", "ptuning-projection"])
@pytest.mark.parametrize("to", ["peft", "ptuning"])
def test_a_prefix_is_the_same_after_it_was_written(tmp_path, name, to):
    if not GOLDEN.exists():
        return
    export(wanted(tmp_path / "out", to, name))
    info = recognise(MODELS / "chatglm3", CHATGLM3_TOKENIZER)
    ours, theirs = (
        open_adapter(path, info, model_config(info)).prefix
        for path in (MODELS / name, tmp_path / "out")
    )
    assert (ours.keys - theirs.keys).abs().max() <= 1e-5
    assert torch.equal(ours.values, theirs.values)
    report = inspect(tmp_path / "out")
    assert report.kind == "adapter" and "virtual tokens" in dict(report.facts)["tokens"]


def test_chatglm_6b_keeps_its_layout_and_its_answers(tmp_path, monkeypatch):
    if not GOLDEN.exists():
        return
    want = expected("chatglm-6b")
    out = tmp_path / "out"
    export(Wanted(MODELS / "chatglm-6b", out, "hub", tokenizer=ICE_TEXT))
    info = recognise(out)
    assert (info.family, info.tokenizer.name) == ("ChatGLM-6B", "ice_text.model")
    with torch.inference_mode():
        logits = load_model(info, "cpu", "float32")(input_ids=want["input_ids"]).logits
    assert (logits - want["logits"]).abs().max() <= 1e-4
    pretend(monkeypatch, "opening", open_adapter=lambda path, info, *_: lora(Source(info), V1))
    merged = Wanted(MODELS / "chatglm-6b", tmp_path / "m", "hub", "poet", tokenizer=ICE_TEXT)
    verdict = export(merged).verdict
    assert 0 < verdict.logits <= verdict.tolerance
    for to in ("native", "gguf"):
        with pytest.raises(CheckpointError, match="v1"):
            export(Wanted(MODELS / "chatglm-6b", tmp_path / to, to, tokenizer=ICE_TEXT))
    report = inspect(out)
    assert dict(report.facts)["rope"] == "two-dimensional positions" and not report.faults
    assert sum(report.dtypes.values()) == report.parameters
