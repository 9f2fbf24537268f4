"""Imported before PEFT and Trainer: the bitsandbytes that they bring comes quietly, and without
code from the hub (glm/quantisation/quantise.py)."""

from contextlib import suppress

from glm.errors import CheckpointError
from glm.quantisation import quantise

with suppress(CheckpointError):  # it is not installed
    quantise.library()
