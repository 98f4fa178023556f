"""Generated stubs of `proto/taxon/v1`: regenerate with `make proto`, never edit."""
