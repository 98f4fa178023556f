"""Which version is the default, and whether a new one may become it."""
