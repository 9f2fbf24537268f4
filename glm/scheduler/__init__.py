"""The one worker that owns a model, and the parts it is made of."""
