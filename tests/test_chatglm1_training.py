"""ChatGLM-6B (v1) is trained: checkpointing, LoRA, a prefix in the attention, packed rows."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from glm.models.chatglm1_positions import positions_and_mask
from tests.tiny_chatglm1 import (
    cache_of,
    keys_and_values,
    prompt,
    random_prefix,
    tiny_chatglm1,
)

TARGETS = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]
PREFIX = "test_prefix"


def labels(ids, learnt):
    """The last ids of each row are learnt."""
    out = torch.full_like(ids, -100)
    out[:, -learnt:] = ids[:, -learnt:]
    return out


def prefix_attention(module, query, key, value, mask, **options):
    """Keys and values of a prefix in front of those of the text; every column sees them."""
    front = [part[None].expand(len(query), -1, -1, -1) for part in module.prefix()]
    key, value = (torch.cat(pair, 2) for pair in zip(front, (key, value), strict=True))
    mask = torch.nn.functional.pad(mask, (front[0].shape[2], 0), value=True)
    return sdpa_attention_forward(module, query, key, value, mask, **options)


AttentionInterface.register(PREFIX, prefix_attention)


def with_prefix(prefix):
    """The tiny model; its attention takes the prefix."""
    model = tiny_chatglm1()
    for index, layer in enumerate(model.transformer.layers):
        layer.attention.prefix = lambda i=index: keys_and_values(prefix, model.config)[i]
    model.set_attn_implementation(PREFIX)
    return model


def gradients(model, parameters, **batch):
    model.zero_grad()
    for parameter in parameters:
        parameter.grad = None
    model(**batch).loss.backward()
    return [parameter.grad.clone() for parameter in parameters]


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_is_on_and_changes_no_gradient(reentrant):
    model = tiny_chatglm1().train()
    ids = prompt(6, answer=5)
    batch = {"input_ids": ids, "labels": labels(ids, 5)}
    wanted = gradients(model, list(model.parameters()), **batch)
    options = {"use_reentrant": reentrant}
    model.activation_checkpointing_enable(options)
    calls = []
    for layer in model.transformer.layers:
        layer.attention.register_forward_pre_hook(lambda *_: calls.append(1))
    found = gradients(model, list(model.parameters()), **batch)
    assert model.is_activation_checkpointing and len(calls) == 2 * len(model.transformer.layers)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(wanted, found, strict=True))


# PEFT asks for checkpointing by its old name.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_three_steps_of_lora_lower_the_loss(checkpointing, tmp_path):
    model = tiny_chatglm1()
    if checkpointing:
        model.activation_checkpointing_enable()
    lora = get_peft_model(model, LoraConfig(r=4, target_modules=TARGETS, task_type="CAUSAL_LM"))
    ids = prompt(6, answer=5)
    batch = {"input_ids": ids, "labels": labels(ids, 5), "attention_mask": torch.ones_like(ids)}
    optimizer = torch.optim.AdamW([p for p in lora.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for _ in range(4):
        loss = lora.train()(**batch).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] > losses[1] > losses[2] > losses[3] and losses[3] < 0.9 * losses[0]
    asked = {"input_ids": prompt(6), "max_new_tokens": 4, "do_sample": False}
    answer = lora.eval().generate(**asked)
    lora.save_pretrained(tmp_path)
    assert torch.equal(lora.merge_and_unload().generate(**asked), answer)


def test_a_prefix_in_the_attention_equals_one_in_the_cache():
    prefix, ids = random_prefix(tiny_chatglm1().config, 5), prompt(6, answer=4)
    plain = tiny_chatglm1()
    with torch.no_grad():
        wanted = plain(ids, past_key_values=cache_of(prefix, plain.config)).logits
        found = with_prefix(prefix)(ids, use_cache=False).logits
        assert (wanted - plain(ids).logits).abs().max() > 0.1
    assert (found - wanted).abs().max() < 2e-5


def test_a_prefix_is_trained_with_and_without_checkpointing():
    prefix = torch.nn.Parameter(random_prefix(tiny_chatglm1().config, 5))
    model = with_prefix(prefix).requires_grad_(False).train()
    ids = prompt(6, answer=4)
    batch = {"input_ids": ids, "labels": labels(ids, 4)}
    (wanted,) = gradients(model, [prefix], **batch)
    options = {"use_reentrant": False}
    model.activation_checkpointing_enable(options)
    (found,) = gradients(model, [prefix], **batch)
    assert wanted.abs().max() > 1e-4 and torch.allclose(wanted, found, atol=1e-6)


@pytest.mark.parametrize("prefixed", [False, True])
def test_rows_packed_into_one_stay_apart(prefixed):
    model = tiny_chatglm1()
    if prefixed:
        model = with_prefix(random_prefix(model.config, 5))
    rows = [prompt(6, 1, answer=4), prompt(0, 2, answer=3), prompt(3, 3, answer=5)]
    places = [positions_and_mask(row[0].tolist(), model.config)[0] for row in rows]
    with torch.no_grad():
        packed = model(torch.cat(rows, 1), position_ids=torch.cat(places, 1)[None]).logits[0]
        apart = torch.cat([model(row).logits[0] for row in rows])
    assert (packed - apart).abs().max() < 2e-5


def test_the_loss_is_that_of_the_learnt_ids_only():
    model, ids = tiny_chatglm1(), prompt(6, answer=4)
    with torch.no_grad():
        out = model(input_ids=ids, labels=labels(ids, 4))
    chances = out.logits[0, -5:-1].log_softmax(-1)
    wanted = -chances.gather(1, ids[0, -4:, None]).mean()
    assert torch.allclose(out.loss, wanted, atol=1e-5)


def test_the_library_finds_the_embeddings():
    model = tiny_chatglm1()
    assert model.get_input_embeddings() is model.transformer.word_embeddings
    assert model.get_output_embeddings() is model.lm_head


def test_only_the_logits_that_are_asked_for_are_computed():
    model, ids = tiny_chatglm1(), prompt(6, answer=4)
    with torch.no_grad():
        whole = model(input_ids=ids).logits
        assert torch.allclose(model(input_ids=ids, logits_to_keep=1).logits, whole[:, -1:])
        some = torch.tensor([2, 5])
        assert torch.allclose(model(input_ids=ids, logits_to_keep=some).logits, whole[:, some])
