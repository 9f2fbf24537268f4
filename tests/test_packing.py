"""A packed batch gives the loss and the gradients of its rows one by one; the naive ways do not."""

import copy

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from finetune.batches.collate import Collator
from finetune.training.row_attention import attend_by_rows
from tests.tiny_chatglm1 import tiny_chatglm1
from tests.tiny_glm import VOCABULARY
from tests.tiny_training import LENGTHS, apart, loss_and_gradients, rows, train_glm

ROWS = rows()
BINS = [ROWS[:3], ROWS[3:]]
WAYS = {
    "one line": Collator().packed([ROWS]),
    "two lines, one padded": Collator(multiple=8).packed(BINS),
    "flat": Collator(flat=True).packed(BINS),
    "padded right": Collator().padded(ROWS),
    "padded left": Collator(side="left").padded(ROWS),
}


def one_by_one(collate=Collator(), given=ROWS):  # noqa: B008
    """Each row alone, without any padding."""
    out = []
    for row in given:
        batch = collate.padded([row])
        out.append({"input_ids": batch["input_ids"], "labels": batch["labels"]})
    return out


@pytest.fixture(scope="module", params=["sdpa", "eager", "by rows"])
def model(request):
    if request.param != "by rows":
        return train_glm(attn_implementation=request.param)
    model = train_glm(attn_implementation="sdpa")
    assert attend_by_rows(model)
    return model


@pytest.fixture(scope="module")
def wanted(model):
    return loss_and_gradients(model, one_by_one())


@pytest.mark.parametrize("batch", WAYS.values(), ids=WAYS)
def test_rows_together_have_the_loss_and_the_gradients_of_rows_apart(model, wanted, batch):
    loss, gradients = loss_and_gradients(model, [batch])
    assert abs(loss - wanted[0]) < 1e-4
    assert apart(gradients, wanted[1]) < 1e-4


NAIVE = {
    "with a mask of padding": {"attention_mask": torch.ones(1, sum(LENGTHS), dtype=torch.long)},
    "with a cache": {"use_cache": True},
    "without positions": {"position_ids": None},
}


@pytest.mark.parametrize("change", NAIVE.values(), ids=NAIVE)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_naive_ways_of_packing_mix_the_rows(attention, change):
    model = train_glm(attn_implementation=attention)
    wanted = loss_and_gradients(model, one_by_one())
    loss, gradients = loss_and_gradients(model, [WAYS["one line"] | change])
    assert abs(loss - wanted[0]) > 1e-3 or apart(gradients, wanted[1]) > 1e-2


def test_a_packed_row_does_not_learn_its_first_token_from_the_row_before():
    first = [sum(LENGTHS[:n]) for n in range(len(LENGTHS))]
    assert (WAYS["one line"]["labels"][0, first] == -100).all()


def test_packing_holds_with_gradient_checkpointing(model, wanted):
    model.activation_checkpointing_enable({"use_reentrant": False})
    loss, gradients = loss_and_gradients(model, [WAYS["two lines, one padded"]])
    model.activation_checkpointing_disable()
    assert abs(loss - wanted[0]) < 1e-4 and apart(gradients, wanted[1]) < 1e-4


@pytest.mark.parametrize("way", ["one line", "lines", "flat", "padded right", "padded left"])
def test_rows_of_chatglm1_stay_apart_with_their_two_positions(way):
    model = tiny_chatglm1().train()
    given = rows(v1=True)
    wanted = loss_and_gradients(model, one_by_one(Collator(v1=model.config), given))
    collate = {"v1": model.config, "pad": 3}
    batch = {
        "one line": lambda: Collator(**collate).packed([given]),
        "lines": lambda: Collator(**collate, multiple=8).packed([given[:2], given[2:]]),
        "flat": lambda: Collator(**collate, flat=True).packed([given[:2], given[2:]]),
        "padded right": lambda: Collator(**collate).padded(given),
        "padded left": lambda: Collator(**collate, side="left").padded(given),
    }[way]()
    assert batch["position_ids"].dim() == 3
    loss, gradients = loss_and_gradients(model, [batch])
    assert abs(loss - wanted[0]) < 1e-4 and apart(gradients, wanted[1]) < 1e-4


# ---- attention row by row --------------------------------------------------------------------


def by_rows(model):
    """The same model, attending row by row."""
    other = copy.deepcopy(model)
    assert attend_by_rows(other)
    return other


def windowed():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    config = MistralConfig(vocab_size=VOCABULARY, sliding_window=4, **sizes, **heads)
    return MistralForCausalLM(config).train()


@pytest.mark.parametrize("batch", WAYS.values(), ids=WAYS)
def test_a_window_of_attention_is_kept(batch):
    model = windowed()
    wanted = loss_and_gradients(model, [batch])
    loss, gradients = loss_and_gradients(by_rows(model), [batch])
    assert abs(loss - wanted[0]) < 1e-5 and apart(gradients, wanted[1]) < 1e-5


def test_attention_by_rows_makes_no_mask_of_a_whole_line():
    model, seen = by_rows(train_glm(attn_implementation="sdpa")), []
    attention = model.model.layers[0].self_attn
    keep = lambda _, __, given: seen.append(given["attention_mask"])  # noqa: E731
    attention.register_forward_pre_hook(keep, with_kwargs=True)
    model(**WAYS["one line"], use_cache=False)
    model(**WAYS["padded left"], use_cache=False)
    assert seen[0] is None and seen[1] is not None


def test_answers_are_generated_as_before():
    model = train_glm(attn_implementation="sdpa").eval()
    batch = Collator(side="left").padded(ROWS)
    options = {"max_new_tokens": 6, "do_sample": False, "attention_mask": batch["attention_mask"]}
    wanted = model.generate(batch["input_ids"], **options)
    assert torch.equal(by_rows(model).generate(batch["input_ids"], **options), wanted)


def test_a_model_on_other_attention_is_left_as_it_is():
    model = train_glm(attn_implementation="eager")
    assert not attend_by_rows(model) and model.config._attn_implementation == "eager"
