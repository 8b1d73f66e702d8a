"""The compared methods, one file per method."""
