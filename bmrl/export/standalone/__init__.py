"""Files that run without bmrl: the loader of exported files, and the models of a Triton repository that hold it.

They are copied into repositories, or run by their path, so that none of them imports anything of this library when it
is loaded.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["PACKAGE", "STANDALONE"]

STANDALONE = Path(__file__).parent
"""The folder of these files."""
PACKAGE = STANDALONE.parents[1]
"""The folder of the library."""
