"""What lies in a model folder or behind a hub id, before any weight is read."""
