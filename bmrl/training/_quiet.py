"""Hide Lightning's advertisements and its hints to authors of training loops."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["quiet_lightning"]

_CHATTER = (
    r".*module\(s\) in eval mode at the start of training.*",  # a frozen network stays in it
    r".*does not have many workers.*",  # images are cached in memory: workers would only copy them
    r".*Checkpoint directory .* exists and is not empty.*",  # expected when a run resumes
    r".*You're resuming from a checkpoint that ended.*",
    r".*You defined a `validation_step` but have no `val_dataloader`.*",  # said once, in our own words
    r".*isinstance\(treespec, LeafSpec\).*",
)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Show Lightning's warnings and errors but not its chatter, for the length of a block."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in _CHATTER:
            warnings.filterwarnings("ignore", message=message)
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
