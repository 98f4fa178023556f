"""Which parts of a picture speak for a label: arithmetic on arrays, the same on a server, a bundle and in reports."""
