"""Whether a model is good, and better than the one in use."""
