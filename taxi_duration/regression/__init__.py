"""Exact linear regression from additive sums; no taxi in it."""
