"""The method pipeline: one call from its params to its result."""
