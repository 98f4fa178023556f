"""Generated stubs of `proto/taxon/inference`: regenerate with `make proto`, never edit."""
