"""A month of trips, from its source to clean arrays."""
