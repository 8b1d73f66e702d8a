"""The command line: ``bmrl`` and ``python -m bmrl``."""
