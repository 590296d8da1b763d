"""Batch prediction of any number of trips."""
