"""Which settings are best: trials over a declared space, and whether the best of them is to be believed."""
