"""Where labelled samples come from, how they are split, and what is wrong with them."""
