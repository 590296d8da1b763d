"""Runs, versions and the champion in MLflow."""
