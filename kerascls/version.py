"""The version of kerascls."""

__version__ = "0.1.0"
