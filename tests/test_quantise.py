"""8 and 4 bit: what they compute, that answers do not mix, what is refused, what they cost."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from glm.checkpoint.recognise import EMBEDDED, recognise
from glm.engines.base import Request
from glm.engines.local import LocalEngine
from glm.errors import CheckpointError
from glm.load import load_model
from glm.quantisation import error as quantisation_error
from glm.quantisation.error import QuantisationError, layers, measure, weight_error
from glm.quantisation.quantise import (
    VERSION,
    can_quantise,
    dequantised,
    finish,
    load_options,
    quantised_modules,
)
from launcher import requirements
from tests.shared_files import ROOT
from tests.tiny_checkpoint import write_checkpoint
from tests.tiny_glm import generated, greedy, read

BITS = pytest.mark.parametrize("bits", [8, 4])
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def info(tmp_path_factory):
    return recognise(
        write_checkpoint(tmp_path_factory.mktemp("m") / "chatglm3-tiny", vocabulary=66000)
    )


@pytest.fixture(scope="module")
def plain(info):
    return load_model(info, "cpu")


@pytest.fixture(scope="module")
def models(info):
    return {bits: load_model(info, "cpu", bits=bits) for bits in (8, 4)}


def tokens(rows, length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 60000, (rows, length), generator=generator)


def logits(model, ids):
    with torch.inference_mode():
        return model(input_ids=ids).logits


# ---- what is computed ----


@BITS
def test_every_linear_module_but_the_head_is_quantised(models, plain, bits):
    names = {n for n, m in plain.named_modules() if isinstance(m, torch.nn.Linear)} - {"lm_head"}
    assert {name for name, _ in quantised_modules(models[bits])} == names
    size = models[bits].get_submodule("model.layers.0.mlp.gate_up_proj").weight
    assert size.numel() * size.element_size() == 256 * 64 * bits // 8


@pytest.mark.parametrize(("bits", "bar"), [(8, 0.012), (4, 0.12)])
def test_weights_stay_near_the_checkpoints(models, plain, bits, bar):
    for name, module in quantised_modules(models[bits]):
        weight = plain.get_submodule(name).weight
        assert 0 < (dequantised(module) - weight).norm() < bar * weight.norm()


@pytest.mark.parametrize(
    ("dtype", "bar"), [("float32", 1e-5), ("bfloat16", 0.02), ("float16", 3e-3)]
)
@pytest.mark.parametrize("length", [5, 40])  # a few rows take another kernel
def test_8_bit_rounds_the_weights_and_nothing_else(info, dtype, bar, length):
    """The same as a plain fp32 model that has these weights, but for the dtype's own rounding."""
    model, twin = load_model(info, "cpu", dtype, bits=8), load_model(info, "cpu")
    for name, module in quantised_modules(model):
        twin.get_submodule(name).weight.data = dequantised(module)
    ids = tokens(1, length)
    want = logits(twin, ids)
    assert (logits(model, ids).float() - want).norm() < bar * want.norm()


def test_8_bit_in_half_precision_sums_without_overflow():
    from bitsandbytes.nn import Linear8bitLt

    module = Linear8bitLt(4096, 32, bias=False, has_fp16_weights=False)
    module.weight.data = torch.full((32, 4096), 0.01)
    module = module.to("cpu").eval()
    finish(module)
    out = module(torch.full((1, 4096), 2.0, dtype=torch.float16))
    assert torch.allclose(out, torch.full_like(out, 81.92), rtol=2e-3)


def test_4_bit_computes_with_its_weights(models, info):
    twin = load_model(info, "cpu")
    for name, module in quantised_modules(models[4]):
        twin.get_submodule(name).weight.data = dequantised(module)
    ids = tokens(2, 20)
    want = logits(twin, ids)
    # Some CPUs have a kernel that computes in bf16.
    assert (logits(models[4], ids) - want).norm() < 0.02 * want.norm()


@BITS
def test_an_answer_does_not_depend_on_its_company(bits):
    """With bitsandbytes' own int8 the company moves these logits by tenths."""
    model = load_model(recognise(EMBEDDED), "cpu", bits=bits)
    alone = torch.arange(100, 160)[None]
    company = torch.cat([alone, torch.randint(3, 6000, (3, 60))])
    torch.testing.assert_close(
        logits(model, company)[:1], logits(model, alone), rtol=1e-4, atol=1e-4
    )


@BITS
def test_the_engine_answers_many_at_once_as_the_model_alone(models, bits):
    prompts = [tuple(tokens(1, length, seed=length)[0].tolist()) for length in (5, 40, 17)]
    engine = LocalEngine(models[bits], context=256, prefill_chunk=16)
    try:
        streams = [engine.submit(Request(prompt, greedy(16))) for prompt in prompts]
        answers = [read(stream).ids for stream in streams]
    finally:
        engine.close()
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer == generated(models[bits], prompt, 16, eos_token_id=None)


def test_weights_read_before_and_after_the_first_step_are_the_same(info):
    """On some CPUs the first step packs 4 bit weights anew, with bf16 scales."""
    model = load_model(info, "cpu", bits=4)
    name, module = next(quantised_modules(model))
    from bitsandbytes.nn import Linear4bit

    fresh = Linear4bit(64, 64, bias=False, quant_type="nf4")
    original = load_file(info.weights[0])[
        "transformer.encoder.layers.0.self_attention.query_key_value.weight"
    ][:64]
    fresh.weight.data = original
    fresh = fresh.to("cpu")
    assert name.endswith("q_proj")
    torch.testing.assert_close(dequantised(module), dequantised(fresh), rtol=0.01, atol=1e-3)


@BITS
def test_a_step_of_training_reaches_the_inputs(info, bits):
    model = load_model(info, "cpu", bits=bits).train()
    embedded = model.model.embed_tokens(tokens(1, 5)).detach().requires_grad_()
    model(inputs_embeds=embedded).logits.sum().backward()
    assert torch.isfinite(embedded.grad).all() and embedded.grad.abs().max() > 0


# ---- what is refused ----

WIDE = {"hidden_size": 128, "num_attention_heads": 4, "multi_query_group_num": 2}


@pytest.mark.parametrize(
    ("config", "bits", "reason"),
    [
        ({**WIDE, "ffn_hidden_size": 256}, 4, None),
        ({**WIDE, "ffn_hidden_size": 3424}, 8, None),
        ({**WIDE, "ffn_hidden_size": 3424}, 4, "3424"),
        ({**WIDE, "intermediate_size": 100}, 4, "100"),
        ({**WIDE, "ffn_hidden_size": 128, "kv_channels": 40}, 4, "80, 160"),
        ({**WIDE, "inner_hidden_size": 200}, 4, "open it in 8 bit"),
        (WIDE, 3, "3 bit is not offered; allowed: 8, 4"),
    ],
)
def test_which_models_can_be_quantised(config, bits, reason):
    found = can_quantise(config, bits)
    assert found is None if reason is None else reason in found


@BITS
def test_a_config_of_transformers_is_asked_the_same(plain, bits):
    assert can_quantise(plain.config, bits) is None


def test_a_model_that_4_bit_cannot_split_is_refused_by_its_width(tmp_path):
    folder = write_checkpoint(tmp_path / "chatglm3-odd", vocabulary=300, ffn_hidden_size=100)
    with pytest.raises(CheckpointError, match="widths 100; open it in 8 bit"):
        load_model(recognise(folder), "cpu", bits=4)
    load_model(recognise(folder), "cpu", bits=8)


def test_a_device_without_these_kernels_is_refused():
    with pytest.raises(CheckpointError, match="not on mps; use --device cpu"):
        load_options(WIDE, 8, torch.float16, torch.device("mps"))


def test_a_missing_library_is_named_with_the_command(monkeypatch):
    from glm.quantisation import quantise

    quantise.library.cache_clear()
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(CheckpointError, match=f"pip install bitsandbytes=={VERSION}"):
        load_options(WIDE, 8, torch.float32, CPU)
    monkeypatch.undo()
    finish(torch.nn.Linear(2, 2))


def test_the_version_in_the_sentence_is_the_pinned_one():
    pins = {item.name: item.version for item in requirements.read([ROOT / "requirements.txt"])}
    assert pins["bitsandbytes"] == VERSION


@BITS
def test_a_weight_that_is_not_a_number_is_refused(tmp_path, bits):
    from safetensors.torch import save_file

    folder = write_checkpoint(tmp_path / "chatglm3-nan", vocabulary=66000)
    state = load_file(folder / "model.safetensors")
    state["transformer.encoder.layers.1.mlp.dense_4h_to_h.weight"][3, 5] = torch.nan
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"computes NaN or infinity in {bits} bit"):
        load_model(recognise(folder), "cpu", bits=bits)


def test_it_says_nothing_and_fetches_no_code(tmp_path):
    """bitsandbytes would load compiled code of the hub where a package `kernels` is found."""
    canary = tmp_path / "canary"
    (tmp_path / "kernels.py").write_text(
        f"def get_kernel(*names, **options): open({str(canary)!r}, 'w').close()\n"
    )
    code = (
        "from glm.load import load_model\n"
        "from glm.checkpoint.recognise import EMBEDDED, recognise\n"
        "model = load_model(recognise(EMBEDDED), 'cpu', 'bfloat16', 8); import peft"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(tmp_path)))},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not canary.exists()


# ---- what it costs ----


@pytest.mark.parametrize(("bits", "low", "high"), [(8, 0.003, 0.012), (4, 0.08, 0.11)])
def test_the_error_is_measured(models, info, bits, low, high):
    found = measure(models[bits], info, tokens(1, 40)[0].tolist())
    assert (found.bits, found.layers, found.all_layers, found.places) == (bits, 2, 2, 40)
    assert low < found.weights < high
    assert 0 < found.logits < 1 and found.largest > 0 and 0 <= found.same <= 40


def test_the_logits_of_a_model_that_lost_nothing_have_no_error(plain):
    ids = tokens(1, 30)[0].tolist()
    assert quantisation_error.logit_error(plain, plain, ids) == (0.0, 0.0, 30)


def test_a_weight_that_went_wrong_on_the_way_is_seen(info):
    """What torchao does to k and v of these folders: random weights, only a missing report."""
    model = load_model(info, "cpu", bits=8)
    for part in ("k_proj", "v_proj"):
        module = model.get_submodule(f"model.layers.1.self_attn.{part}")
        module.weight.data.copy_(torch.randint(-127, 128, module.weight.shape))
    names = layers(model)
    assert weight_error(model, info, names[0]) < 0.012
    assert weight_error(model, info, names[1]) > 0.3


def test_of_a_large_model_three_layers_are_read_and_no_logits_compared(tmp_path, monkeypatch):
    folder = write_checkpoint(tmp_path / "chatglm3-deep", vocabulary=66000, num_layers=7)
    info = recognise(folder)
    model = load_model(info, "cpu", bits=4)
    asked = []
    monkeypatch.setattr(quantisation_error, "SMALL", 1)
    monkeypatch.setattr(quantisation_error, "weight_error", lambda *a: asked.extend(a[2]) or 0.09)
    found = measure(model, info, [1, 2, 3])
    assert {int(name.split(".")[2]) for name in asked} == {0, 3, 6}
    assert (found.layers, found.all_layers, found.logits) == (3, 7, None)


def test_the_figures_in_a_sentence():
    small = QuantisationError(4, 0.0923, 6, 6, 0.0314, 1.2, 97, 100)
    assert small.sentence() == (
        "4 bit: 3.1% mean relative error of the logits, same next token in 97 of 100 places; "
        "weights 9.2% off"
    )
    large = QuantisationError(8, 0.0072, 3, 28)
    assert large.sentence() == "8 bit: weights 0.7% off (measured in 3 of 28 layers)"


def test_the_embedded_model_can_be_opened_in_8_bit_and_keeps_its_words():
    from glm.dialects import DIALECTS
    from glm.tokenizer import Tokenizer

    info = recognise(EMBEDDED)
    ids = DIALECTS[info.dialect](Tokenizer(info.tokenizer)).prompt(quantisation_error.SAMPLE)
    found = measure(load_model(info, "cpu", bits=8), info, ids)
    assert found.places > 100 and found.same > 0.9 * found.places and found.logits < 0.06
