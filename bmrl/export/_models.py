"""What the exporting functions take as a model: one in memory, or the folder of one."""

from __future__ import annotations

import os

from bmrl.errors import DTypeError
from bmrl.models import BMRL, load_model

__all__ = ["as_model"]


def as_model(model: BMRL | str | os.PathLike[str]) -> BMRL:
    """Return a model, loaded if a folder is given; of one that ``torch.compile`` wraps, the model itself.

    Raises:
        DTypeError: it is neither.
        MissingFileError, ModelFolderError: the folder holds no usable model.
    """
    if isinstance(model, str | os.PathLike):
        return load_model(model)
    inner = getattr(model, "_orig_mod", model)
    if not isinstance(inner, BMRL):
        raise DTypeError(f"model: expected a bmrl model or its folder, got {type(model).__name__}")
    return inner
