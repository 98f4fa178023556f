"""Who is let in: certificates, keys, what each caller may do and how much of it."""
