"""What a run can be told: each option once, and everything made from it."""
