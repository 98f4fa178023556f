"""What the loop of a training is made of."""
