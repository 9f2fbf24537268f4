"""Adapters: what a file of them is, and the same few values whatever layout it was in."""
