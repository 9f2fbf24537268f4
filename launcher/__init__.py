"""What launch.py does, in parts. All but `serve` and `share` runs on the standard library alone."""
