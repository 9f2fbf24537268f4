"""The loss with the head on learnt positions only is the plain loss, gradients too."""

import copy
import inspect

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from finetune.batches.collate import Collator, idle
from finetune.training.learnt_head import learn_only, learnt_loss
from glm.models.chatglm import ChatGLMConfig, ChatGLMForCausalLM
from tests.tiny_chatglm1 import tiny_chatglm1
from tests.tiny_glm import VOCABULARY
from tests.tiny_training import apart, loss_and_gradients, rows, train_glm

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}


def chatglm():
    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    config = ChatGLMConfig(**SIZES, attention_bias=True, rope_parameters=rope)
    return ChatGLMForCausalLM(config).train()


def llama(**changes):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, **changes)).train()


def lora():
    model = get_peft_model(train_glm(), LoraConfig(r=4, target_modules="all-linear"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model.train()


MODELS = {
    "glm": train_glm,
    "chatglm": chatglm,
    "chatglm1": lambda: tiny_chatglm1().train(),
    "llama": llama,
    "llama, tied": lambda: llama(tie_word_embeddings=True),
    "lora": lora,
}


def batches(name):
    v1 = name == "chatglm1"
    collator = Collator(pad=3, v1=tiny_chatglm1().config) if v1 else Collator()
    given = rows(v1=v1)
    return [collator.packed([given]), collator.padded(given)]


# PEFT asks for checkpointing by its old name.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("most", [2**26, 5 * VOCABULARY, 1], ids=["whole", "chunks", "one by one"])
@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradients_are_the_plain_ones(name, most):
    model = MODELS[name]()
    for batch in batches(name):
        plain = loss_and_gradients(model, [batch])
        learnt = copy.deepcopy(model)
        assert learn_only(learnt, most)
        found = loss_and_gradients(learnt, [batch])
        assert abs(found[0] - plain[0]) < 1e-5
        assert apart(found[1], plain[1]) < 1e-5


def test_the_head_runs_on_the_learnt_positions_and_no_others():
    model = train_glm()
    learn_only(model)
    seen = []
    model.lm_head.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    (batch, _) = batches("glm")
    model(**batch)
    assert seen == [int((batch["labels"][:, 1:] != -100).sum())]


def test_chunks_bound_the_logits_that_are_kept_for_the_way_back():
    head = torch.nn.Linear(8, 1000)
    hidden = torch.randn(1, 501, 8, requires_grad=True)
    labels = torch.randint(0, 1000, (1, 501))
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = learnt_loss(hidden, labels, head, most=50_000)
    assert max(kept) < 50_000
    loss.backward()
    assert hidden.grad.abs().sum() > 0


def test_the_trainers_count_divides_the_sum():
    model = train_glm()
    (batch, _) = batches("glm")
    learn_only(model)
    count = int((batch["labels"][:, 1:] != -100).sum())
    mean = model(**batch).loss
    for given in (2 * count, torch.tensor(2 * count)):
        assert torch.allclose(model(**batch, num_items_in_batch=given).loss * 2, mean)


def test_nothing_to_learn_is_a_loss_of_zero_and_never_nan():
    model = train_glm()
    learn_only(model)
    batch = idle(batches("glm")[0])
    loss = model(**batch).loss
    loss.backward()
    assert loss.item() == 0
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and not g.any() for g in gradients)


def test_without_labels_the_model_answers_as_before():
    model = train_glm().eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    options = {"max_new_tokens": 5, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    wanted, said = model(ids).logits, model.generate(ids, **options)
    learn_only(model)
    assert torch.equal(model(ids).logits, wanted)
    assert torch.equal(model.generate(ids, **options), said)


def test_the_trainer_still_finds_the_arguments_of_forward():
    model = train_glm()
    before = inspect.signature(model.forward)
    learn_only(model)
    assert inspect.signature(model.forward) == before


def test_gradient_checkpointing_goes_with_it():
    model = train_glm()
    (batch, _) = batches("glm")
    plain = loss_and_gradients(model, [batch])
    learn_only(model, 5 * VOCABULARY)
    model.activation_checkpointing_enable({"use_reentrant": False})
    found = loss_and_gradients(model, [batch])
    assert apart(found[1], plain[1]) < 1e-5


def test_a_model_that_caps_its_logits_is_left_as_it_is():
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(Gemma2Config(**SIZES))
    before = model.forward
    assert not learn_only(model) and model.forward == before
    assert not learn_only(torch.nn.Linear(2, 2))


def test_bf16_gives_the_plain_loss_too():
    model = train_glm().to(torch.bfloat16)
    (batch, _) = batches("glm")
    plain = model(**batch, use_cache=False).loss
    learn_only(model)
    assert abs(model(**batch).loss - plain) < 2e-3
