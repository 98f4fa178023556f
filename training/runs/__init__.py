"""The folder of one training, and its checkpoints."""
