"""From rows to batches: order, packing, padding."""
