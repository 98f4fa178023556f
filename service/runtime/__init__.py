"""Inside a worker process: sessions, decoding, proofs."""
