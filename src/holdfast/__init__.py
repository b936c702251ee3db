"""Holdfast: a distributed object store that keeps bytes, sealed, on machines that need not be trusted."""

__version__ = "0.1.0.dev0"
