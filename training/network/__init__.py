"""Names → networks, their weights and their stages."""
