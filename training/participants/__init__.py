"""Several participants train one model: weights are exchanged, pictures are not."""
