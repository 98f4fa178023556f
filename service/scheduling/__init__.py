"""Who is next, who may come in, and the processes that run models."""
