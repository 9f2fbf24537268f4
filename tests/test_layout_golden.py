"""Tokens and labels are those of the official and of Firefly's preprocessing, row by row."""

from finetune.layouts import NOT_LEARNT
from tests.shared_files import golden_rows
from tests.training_desk import conversation, made, real_chatglm3


def test_the_official_layout_gives_the_official_ids_and_labels():
    for row in golden_rows("chatglm3_official_multiturn.jsonl"):
        found = made("chatglm3", conversation(row["row"]), real_chatglm3())
        assert list(found.ids) == row["tokens"]
        assert list(found.labels) == row["labels"]


def test_eos_per_turn_gives_the_ids_and_the_mask_of_firefly():
    for row in golden_rows("chatglm3_firefly.jsonl"):
        found = made("eos-per-turn", conversation(row["row"]), real_chatglm3())
        assert list(found.ids) == row["tokens"]
        assert [int(label != NOT_LEARNT) for label in found.labels] == row["target_mask"]
