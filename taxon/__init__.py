"""Taxon: fine-tune an image classifier, export it with proof, serve it over gRPC."""

__version__ = "0.1.0"
