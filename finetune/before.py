"""Imported before PEFT and Trainer: the bitsandbytes that they bring comes quietly, and without
code from the hub (glm/quantise.py)."""

from contextlib import suppress

from glm import quantise
from glm.errors import CheckpointError

with suppress(CheckpointError):  # it is not installed
    quantise.library()
