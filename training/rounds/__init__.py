"""From what people say to the next version: suspicious labels, merged data, training, the verdict."""
