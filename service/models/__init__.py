"""What may be served, and which version is the default."""
