"""Positions that depend on who else is in the batch: where the context ends."""

import json

import pytest

from glm.checkpoint.recognise import recognise
from tests.tiny_checkpoint import write_checkpoint


@pytest.mark.parametrize("place", ["config", "rope"])
def test_positions_that_change_for_the_whole_batch_are_used_up_to_there(tmp_path, place):
    """Long RoPE turns every row of a step by the longest one's length."""
    folder = write_checkpoint(tmp_path / "phi")
    rope, extra = {"rope_type": "longrope", "long_factor": [1.0], "short_factor": [1.0]}, {}
    (rope if place == "rope" else extra)["original_max_position_embeddings"] = 64
    config = {"model_type": "phi3", "max_position_embeddings": 4096, "rope_scaling": rope, **extra}
    (folder / "config.json").write_text(json.dumps(config))
    info = recognise(folder)
    assert info.context == 64
    assert "64 of 4096" in info.reason
