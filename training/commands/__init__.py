"""The commands of `taxon`: arguments and printing only."""
