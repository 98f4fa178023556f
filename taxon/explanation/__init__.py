"""Which parts of a picture speak for a label: arithmetic on arrays, the same in the service, on a bundle and in reports."""
