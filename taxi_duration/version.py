"""The package's version, part of every model's identity."""

__version__ = "0.1.0"
