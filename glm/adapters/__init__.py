"""Adapters: what a file of them is, and the same few values whatever layout it was in.

sources: looks_like_adapter, without torch. opening: open_adapter, describe. merging: merge.
saving: the layouts of other programs. card: what it was made from, fingerprints, mismatches.
"""
