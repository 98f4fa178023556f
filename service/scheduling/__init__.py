"""Who is next, and who may come in: rules without processes."""
