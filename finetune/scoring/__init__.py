"""What an evaluation asks, and how an answer is counted."""
