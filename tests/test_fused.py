"""Layers in fewer passes give the loss and the gradients of the library's own."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Glm4Config, Glm4ForCausalLM

from finetune.batches.collate import Collator
from finetune.methods import METHODS
from finetune.training.fused import fuse
from finetune.training.learnt_head import learn_only
from finetune.training.row_attention import attend_by_rows
from glm.models.chatglm import ChatGLMConfig, ChatGLMForCausalLM
from tests.tiny_glm import VOCABULARY
from tests.tiny_training import apart, loss_and_gradients, rows, train_glm
from tests.training import options

# PEFT asks for checkpointing by a name that transformers is leaving
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
ROWS = rows()
BATCHES = {
    "packed": [Collator().packed([ROWS[:3], ROWS[3:]])],
    "padded": [Collator().padded(ROWS)],
    "padded left": [Collator(side="left").padded(ROWS)],
}
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}


def chatglm(kind=torch.float32):
    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    model = ChatGLMForCausalLM(ChatGLMConfig(**SIZES, attention_bias=True, rope_parameters=rope))
    return model.to(kind).train()


def glm4():
    torch.manual_seed(0)
    return Glm4ForCausalLM(Glm4Config(**SIZES)).train()


def with_lora(model, **changes):
    """All linear layers, with a B that is not zero, so that A learns too."""
    settings = {"r": 4, "lora_alpha": 6, "target_modules": "all-linear", "lora_dropout": 0.0}
    torch.manual_seed(1)
    lora = get_peft_model(model, LoraConfig(**{**settings, **changes}))
    for name, weight in lora.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return lora.train()


def both(model, batches):
    """Loss and gradients of the library's own and of a fused copy; how many are fused."""
    fused = copy.deepcopy(model)
    count = fuse(fused)
    for each in (model, fused):
        learn_only(each)
        attend_by_rows(each)
    torch.manual_seed(5)
    wanted = loss_and_gradients(model, batches)
    torch.manual_seed(5)
    return wanted, loss_and_gradients(fused, batches), count


@pytest.mark.parametrize("batches", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("make", [train_glm, chatglm, glm4])
def test_a_lora_learns_the_same(make, batches):
    (loss, gradients), (other, others), count = both(with_lora(make()), batches)
    assert count >= 2 * 6 + 2 + 2 + 5  # LoRAs, gates, attentions, norms
    assert abs(loss - other) < 1e-6 and apart(gradients, others) < 1e-6


def test_all_weights_learn_the_same():
    (loss, gradients), (other, others), _ = both(chatglm(), BATCHES["packed"])
    assert abs(loss - other) < 1e-6 and apart(gradients, others) < 1e-6


def test_dropout_takes_the_same_numbers():
    model = with_lora(train_glm(), lora_dropout=0.5)
    (loss, gradients), (other, others), _ = both(model, BATCHES["packed"])
    assert abs(loss - other) < 1e-6 and apart(gradients, others) < 1e-6


def test_activations_may_be_computed_twice():
    model = with_lora(train_glm(), lora_dropout=0.5)
    model.base_model.model.activation_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    (loss, gradients), (other, others), _ = both(model, BATCHES["packed"])
    assert abs(loss - other) < 1e-6 and apart(gradients, others) < 1e-6


def test_a_prefix_learns_the_same():
    model = METHODS["ptuning"].apply(train_glm(), options(pre_seq_len=4))
    model.prefix_encoder.dropout.p = 0.0
    plain = loss_and_gradients(model, BATCHES["packed"])
    assert fuse(model)
    fused = loss_and_gradients(model, BATCHES["packed"])
    assert abs(plain[0] - fused[0]) < 1e-6 and apart(plain[1], fused[1]) < 1e-6


def test_half_precision_is_as_near_to_fp32_as_the_librarys_own():
    exact, _ = loss_and_gradients(with_lora(chatglm()), BATCHES["packed"])
    model = with_lora(chatglm(torch.bfloat16))
    with torch.autocast("cpu", torch.bfloat16):
        (loss, gradients), (other, others), _ = both(model, BATCHES["packed"])
    assert abs(other - exact) < max(2 * abs(loss - exact), 0.02)
    assert {gradient.dtype for gradient in others} == {torch.float32}
    for one, two in zip(gradients, others, strict=True):
        assert (one - two).norm() < 0.06 * one.norm()


@pytest.mark.filterwarnings("ignore:.*lora_bias=True")
@pytest.mark.parametrize("changes", [{"use_dora": True}, {"lora_bias": True}])
def test_what_is_no_plain_lora_keeps_its_own_way(changes):
    model = with_lora(train_glm(), **changes)
    layer = model.base_model.model.model.layers[0].mlp.down_proj
    fuse(model)
    assert "forward" not in vars(layer)


def test_an_adapter_that_is_turned_off_is_off():
    model = with_lora(train_glm())
    with torch.no_grad(), model.disable_adapter():
        wanted = model(**BATCHES["packed"][0], use_cache=False).loss
    fuse(model)
    with torch.no_grad(), model.disable_adapter():
        assert abs(model(**BATCHES["packed"][0], use_cache=False).loss - wanted) < 1e-6
    with torch.no_grad():
        assert abs(model(**BATCHES["packed"][0], use_cache=False).loss - wanted) > 1e-3


def test_a_fused_model_still_answers_from_a_cache():
    model = with_lora(train_glm()).eval()
    asked = {"input_ids": torch.randint(3, 90, (1, 7)), "max_new_tokens": 6, "do_sample": False}
    wanted = model.generate(**asked)
    fuse(model)
    assert torch.equal(model.generate(**asked), wanted)
