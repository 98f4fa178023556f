"""Which settings serve a model fastest on this machine, by trying them on real servers."""
