"""Weights in fewer bits: made here, read from the family's own files, and what they cost."""
