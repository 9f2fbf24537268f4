"""ChatGLM-6B (v1): folders in the hub's layout, their config, and how numbers are rounded."""

import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from glm.errors import CheckpointError
from glm.models.chatglm1 import ChatGLM1Config, ChatGLM1ForCausalLM, rope
from tests.tiny_chatglm1 import EOP, prompt, tiny_chatglm1


@pytest.fixture(scope="module")
def model():
    return tiny_chatglm1()


def logits(model, ids):
    with torch.inference_mode():
        return model(input_ids=ids).logits


def test_saved_and_opened_again_it_answers_the_same(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(again) is ChatGLM1ForCausalLM
    assert torch.equal(logits(again, prompt(5)), logits(model, prompt(5)))


def test_a_hub_folder_opens_by_its_own_names(model, tmp_path):
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    assert "transformer.layers.1.attention.query_key_value.bias" in weights
    for layer in range(2):
        weights[f"transformer.layers.{layer}.attention.rotary_emb.inv_freq"] = torch.ones(4).half()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    hub = {**model.config.to_dict(), "model_type": "chatglm", "position_encoding_2d": True}
    (tmp_path / "config.json").write_text(json.dumps(hub))
    again, report = ChatGLM1ForCausalLM.from_pretrained(
        tmp_path, config=ChatGLM1Config.from_dict(hub), output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert torch.equal(logits(again.eval(), prompt(5)), logits(model, prompt(5)))


HUB = {
    "_name_or_path": "THUDM/chatglm-6b",
    "architectures": ["ChatGLMModel"],
    "auto_map": {"AutoModel": "modeling_chatglm.ChatGLMForConditionalGeneration"},
    "model_type": "chatglm",
    "position_encoding_2d": True,
    "inner_hidden_size": 16384,
    "max_sequence_length": 2048,
    "bos_token_id": 130004,
    "eos_token_id": 130005,
    "gmask_token_id": 130001,
    "mask_token_id": 130000,
    "pad_token_id": 3,
    "vocab_size": 130528,
    "num_layers": 28,
    "quantization_bit": 0,
    "pre_seq_len": None,
    "prefix_projection": False,
}


def test_the_hub_config_is_read():
    config = ChatGLM1Config.from_dict(HUB)
    assert (config.model_type, config.num_hidden_layers) == ("chatglm1", 28)
    assert (config.max_position_embeddings, config.intermediate_size) == (2048, 16384)
    assert (config.bos_token_id, config.eos_token_id, config.gmask_token_id) == (
        130004,
        130005,
        130001,
    )
    assert not config.tie_word_embeddings and not hasattr(config, "auto_map")


def test_the_first_vocabulary_has_its_own_ids():
    first = {"bos_token_id": 150004, "eos_token_id": 150005, "vocab_size": 150528}
    silent = {k: v for k, v in HUB.items() if k not in ("gmask_token_id", "mask_token_id")}
    config = ChatGLM1Config.from_dict(silent | first)
    assert (config.mask_token_id, config.gmask_token_id) == (150000, 150001)


def test_positions_of_one_dimension_are_refused():
    with pytest.raises(CheckpointError, match="position_encoding_2d=False is not supported"):
        ChatGLM1Config.from_dict(HUB | {"position_encoding_2d": False})


# ---- rounding -----------------------------------------------------------------------------------


def test_angles_round_as_in_the_official_code():
    places = torch.tensor([[[0, 7, 1999], [1, 300, 2]]])
    frequencies = (1.0 / 10000 ** (torch.arange(0, 64, 2).float() / 64)).half()
    for dtype, kind in ((torch.float32, torch.float32), (torch.float16, torch.float16)):
        cos, _ = rope(places, 128, dtype)
        angles = torch.outer(torch.arange(2000).to(kind), frequencies.to(kind))
        table = torch.cat((angles, angles), -1).cos()
        assert torch.equal(cos[0, 0], torch.cat((table[places[0, 0]], table[places[0, 1]]), -1))
    exact, rounded = rope(places, 128, torch.float32)[0], rope(places, 128, torch.bfloat16)[0]
    assert (exact - rounded).abs().max() < 4e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["sdpa", "eager"])
def test_half_precision_is_near_and_finite(dtype, kind):
    model = tiny_chatglm1()
    exact = logits(model, prompt(6, answer=3))
    half = tiny_chatglm1().to(dtype)
    half.set_attn_implementation(kind)
    found = logits(half, prompt(6, answer=3))
    assert found.dtype == dtype and (found.float() - exact).abs().max() < 0.2 * exact.abs().max()
    assert half.config.eos_token_id == EOP
