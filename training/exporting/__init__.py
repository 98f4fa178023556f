"""A trained network → an ONNX graph with the proof that it answers the same → a bundle and its variants."""
