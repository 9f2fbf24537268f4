"""The run itself: processes, loop, checkpoints, ends."""
