"""Measurements of this package beside other ways to the same result."""
