"""ChatGLM-6B (v1): the official logits, and one way of computing like another."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import StaticCache

from glm.models.chatglm1 import ChatGLM1Config, ChatGLM1ForCausalLM
from glm.models.chatglm1_positions import layout, positions_and_mask
from glm.scheduler.rows import Rows
from tests.shared_files import GOLDEN
from tests.tiny_chatglm1 import (
    GMASK,
    MASK,
    PAD,
    SOP,
    cache_of,
    keys_and_values,
    prompt,
    random_prefix,
    tiny_chatglm1,
)

MODELS = GOLDEN / "models"
BAR = 1e-4
NEAR = 2e-5


@pytest.fixture(scope="module")
def model():
    return tiny_chatglm1()


@pytest.fixture(scope="module")
def official():
    """The model of the golden folder, or None where it is not here."""
    if not GOLDEN.exists():
        return None
    folder = MODELS / "chatglm-6b"
    config = ChatGLM1Config.from_dict(json.loads((folder / "config.json").read_text()))
    model, report = ChatGLM1ForCausalLM.from_pretrained(
        folder, config=config, dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    return model.eval()


def logits(model, ids, **options):
    with torch.inference_mode():
        return model(input_ids=ids, **options).logits


def greedy(model, ids, count=8, **options):
    out = model.generate(
        input_ids=ids, max_new_tokens=count, do_sample=False, eos_token_id=None, **options
    )
    return out[:, ids.shape[1] :]


def stepped(model, ids, count=8, **options):
    """One id at a time over a cache, its greedy ids and their logits."""
    out, kept = [], []
    for _ in range(count):
        with torch.inference_mode():
            step = model(input_ids=ids, use_cache=True, **options)
        options = {"past_key_values": step.past_key_values}
        ids = step.logits[:, -1:].argmax(-1)
        out.append(ids)
        kept.append(step.logits[:, -1])
    return torch.cat(out, 1), torch.stack(kept, 1)


@pytest.fixture
def expected():
    def read(name):
        return load_file(MODELS / "expected" / f"{name}.safetensors")

    return read


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
def test_logits_and_greedy_ids_equal_the_official_code(official, expected, kind):
    if official is None:
        return
    wanted = expected("chatglm-6b")
    official.set_attn_implementation(kind)
    ids, answers = wanted["input_ids"], wanted["greedy_ids"]
    assert (logits(official, ids) - wanted["logits"]).abs().max() < BAR
    assert torch.equal(greedy(official, ids[:, :22], 20), answers[:, 22:])
    assert torch.equal(stepped(official, ids[:, :22], 20)[0], answers[:, 22:])
    official.set_attn_implementation("sdpa")


def test_a_prefix_in_the_cache_equals_the_official_ptuning(official, expected):
    if official is None:
        return
    wanted, prefix = expected("chatglm-6b-ptuning"), official_prefix()
    ids, config = wanted["input_ids"], official.config
    found = logits(official, ids, past_key_values=cache_of(prefix, config))
    assert (found - wanted["logits"]).abs().max() < BAR
    begun = {"past_key_values": cache_of(prefix, config)}
    assert torch.equal(stepped(official, ids[:, :22], 20, **begun)[0], wanted["greedy_ids"][:, 22:])
    dummies = torch.cat([torch.zeros(1, len(prefix), dtype=torch.long), ids[:, :22]], 1)
    found = greedy(
        official,
        dummies,
        20,
        attention_mask=torch.ones_like(dummies),
        past_key_values=cache_of(prefix, config),
    )
    assert torch.equal(found, wanted["greedy_ids"][:, 22:])


def test_a_prefix_in_rows_equals_the_official_ptuning(official, expected):
    if official is None:
        return
    wanted, prefix = expected("chatglm-6b-ptuning"), official_prefix()
    ids = wanted["input_ids"]
    found = computed_as_by_the_engine(official, ids[0].tolist(), [22, 25], prefix)
    assert (found - wanted["logits"][0]).abs().max() < BAR


def official_prefix():
    file = MODELS / "chatglm-6b-ptuning" / "pytorch_model.bin"
    (weight,) = torch.load(file, weights_only=True).values()
    return weight.float()


def computed_as_by_the_engine(model, ids, stops, prefix=None):
    """The logits of every id, computed over Rows in chunks that end at `stops`."""
    rows, front, start, out = Rows(), 0, 0, []
    rows.reserve(1, 300)
    if prefix is not None:
        front = len(prefix)
        rows.one(0, 0, front)
        for layer, (key, value) in enumerate(keys_and_values(prefix, model.config)):
            rows.update(key[None], value[None], layer)
    for stop in stops:
        places, seen = positions_and_mask(ids, model.config, start, stop, front)
        found = logits(
            model,
            torch.tensor([ids[start:stop]]),
            position_ids=places[None],
            attention_mask=additive(seen)[None, None],
            past_key_values=rows.one(0, front + start, front + stop),
            use_cache=False,
        )
        out.append(found[0])
        start = stop
    return torch.cat(out)


def additive(seen):
    return torch.zeros(seen.shape).masked_fill_(~seen, torch.finfo(torch.float32).min)


# ---- one way of computing like another ----------------------------------------------------------


def official_rule(ids):
    """The official get_masks and get_position_ids of one sequence, in plain words."""
    context, mark = ids.index(SOP), ids.index(GMASK if GMASK in ids else MASK)
    places = [(i, 0) if i < context else (mark, i - context + 1) for i in range(len(ids))]
    seen = [[k <= q or k < context for k in range(len(ids))] for q in range(len(ids))]
    return torch.tensor(places).T, torch.tensor(seen)


@pytest.mark.parametrize(
    "ids", [[5, 6, GMASK, SOP], [5, MASK, 6, 7, SOP, 8, 9], [GMASK, SOP], [MASK, 5, GMASK, SOP, 4]]
)
def test_positions_and_mask_follow_the_official_rule(model, ids):
    places, seen = official_rule(ids)
    found = positions_and_mask(ids, model.config)
    assert torch.equal(found[0], places) and torch.equal(found[1], seen)
    given = {"position_ids": places[None], "attention_mask": seen[None, None]}
    assert torch.equal(
        logits(model, torch.tensor([ids]), **given), logits(model, torch.tensor([ids]))
    )


def test_parts_of_positions_and_mask_are_parts_of_the_whole(model):
    ids = prompt(5, answer=4)[0].tolist()
    places, seen = positions_and_mask(ids, model.config)
    for start in range(layout(ids, model.config).context, len(ids)):
        part = positions_and_mask(ids, model.config, start, start + 1, prefix=3)
        assert torch.equal(part[0], places[:, start : start + 1])
        assert part[1][:, :3].all() and torch.equal(part[1][:, 3:], seen[start:, : start + 1][:1])


def test_the_context_is_not_computed_in_parts(model):
    ids = prompt(5, answer=4)[0].tolist()
    for start, stop in ((0, 3), (2, 8), (3, 4)):
        with pytest.raises(ValueError, match="computed in one call"):
            positions_and_mask(ids, model.config, start, stop)


def test_every_position_matters(model):
    ids = prompt(6, answer=4)
    whole = logits(model, ids)
    for column in range(ids.shape[1]):
        if ids[0, column] in (GMASK, SOP):
            continue
        other = ids.clone()
        other[0, column] = 55
        changed = (logits(model, other) - whole).abs().amax(-1)[0] > 1e-4
        first = 0 if column < 7 else column
        assert changed[first:].all() and not changed[:first].any()


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
def test_steps_over_a_cache_equal_the_whole(model, kind):
    model.set_attn_implementation(kind)
    ids = prompt(7)
    answer, steps = stepped(model, ids)
    whole = logits(model, torch.cat([ids, answer], 1))
    assert (whole[:, ids.shape[1] - 1 : -1] - steps).abs().max() < NEAR
    assert torch.equal(greedy(model, ids), answer)
    model.set_attn_implementation("sdpa")


def test_chunks_over_rows_equal_the_whole(model):
    ids = prompt(7, answer=6)
    for stops in ([15], [8, 15], [9, 12, 15], list(range(9, 16))):
        found = computed_as_by_the_engine(model, ids[0].tolist(), stops)
        assert (found - logits(model, ids)[0]).abs().max() < NEAR


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
def test_one_id_over_a_cache_needs_no_mask(model, kind):
    model.set_attn_implementation(kind)
    ids = prompt(7, answer=1)
    places, _ = positions_and_mask(ids[0].tolist(), model.config, 9, 10)
    with torch.inference_mode():
        cache = model(input_ids=ids[:, :9], use_cache=True).past_key_values
    found = logits(model, ids[:, 9:], position_ids=places[None], past_key_values=cache)
    assert (found - logits(model, ids)[:, 9:]).abs().max() < NEAR
    model.set_attn_implementation("sdpa")


def test_a_padded_batch_answers_as_each_alone(model):
    rows = [prompt(4, 1), prompt(9, 2), prompt(1, 3)]
    ids, mask = padded(rows)
    found, together = (
        greedy(model, ids, attention_mask=mask),
        logits(model, ids, attention_mask=mask),
    )
    for row, alone in enumerate(rows):
        assert torch.equal(found[row : row + 1], greedy(model, alone))
        size = alone.shape[1]
        assert (together[row, -size:] - logits(model, alone)[0]).abs().max() < NEAR


def test_padding_at_the_right_changes_nothing(model):
    rows = [prompt(4, 1, answer=3), prompt(9, 2, answer=1)]
    ids, mask = padded(rows, left=False)
    together = logits(model, ids, attention_mask=mask)
    for row, alone in enumerate(rows):
        size = alone.shape[1]
        assert (together[row, :size] - logits(model, alone)[0]).abs().max() < NEAR


def padded(rows, left=True):
    width = max(row.shape[1] for row in rows)
    ids, mask = torch.full((len(rows), width), PAD), torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(width - row.shape[1], width) if left else slice(0, row.shape[1])
        ids[i, place], mask[i, place] = row[0], 1
    return ids, mask


def test_a_prefix_is_seen_by_every_column_and_moves_none(model):
    prefix, ids = random_prefix(model.config, 5), prompt(6)
    answer, steps = stepped(model, ids, past_key_values=cache_of(prefix, model.config))
    assert (steps - stepped(model, ids)[1]).abs().max() > 0.1
    whole = torch.cat([ids, answer], 1)
    stops = [8, *range(9, whole.shape[1] + 1)]
    found = computed_as_by_the_engine(model, whole[0].tolist(), stops, prefix)
    assert (found[7:-1] - steps[0]).abs().max() < NEAR
    rows = [prompt(3, 1), prompt(6)]
    batch, mask = padded(rows)
    dummies, ones = torch.zeros(2, 5, dtype=torch.long), torch.ones(2, 5, dtype=torch.long)
    together = greedy(
        model,
        torch.cat([dummies, batch], 1),
        attention_mask=torch.cat([ones, mask], 1),
        past_key_values=cache_of(prefix, model.config, 2),
    )
    assert torch.equal(together[1:], answer)


def test_a_static_cache_and_beams_answer_the_same(model):
    ids, mask = padded([prompt(4, 1), prompt(9, 2)])
    wanted = greedy(model, ids, attention_mask=mask)
    cache = StaticCache(config=model.config, max_cache_len=40)
    assert torch.equal(greedy(model, ids, attention_mask=mask, past_key_values=cache), wanted)
    beams = greedy(model, ids, attention_mask=mask, num_beams=3)
    apart = [greedy(model, row, num_beams=3) for row in (prompt(4, 1), prompt(9, 2))]
    assert torch.equal(beams, torch.cat(apart))


def test_without_sop_all_is_context(model):
    ids = torch.tensor([[5, 6, 7, 8]])
    other = torch.tensor([[5, 6, 7, 9]])
    assert (logits(model, ids) - logits(model, other))[0, 0].abs().max() > 1e-4
    assert layout(ids[0].tolist(), model.config).context == 4
    places, seen = positions_and_mask(ids[0].tolist(), model.config)
    given = {"position_ids": places[None], "attention_mask": seen[None, None]}
    assert torch.equal(logits(model, ids, **given), logits(model, ids))


def test_inputs_that_cannot_be_computed_are_refused(model):
    ids = prompt(3)
    mask = torch.ones(1, 1, 5, 5, dtype=torch.bool)
    places = torch.zeros(1, 2, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="4-D attention_mask needs position_ids"):
        model(input_ids=ids, attention_mask=mask)
    with pytest.raises(ValueError, match="inputs_embeds need position_ids"):
        model(inputs_embeds=torch.zeros(1, 4, 32))
    with pytest.raises(ValueError, match="has 2 columns for 5 ids"):
        model(input_ids=ids, attention_mask=torch.ones(1, 2))
    cache = model(input_ids=ids, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="over a cache need a 4-D"):
        model(input_ids=ids[:, :2], position_ids=places, past_key_values=cache)
