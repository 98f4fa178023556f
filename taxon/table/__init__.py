"""Any number of picture files → one table, resumable to the file: what `taxon classify --out` does."""
