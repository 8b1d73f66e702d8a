"""Attribution in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bmrl.inference.attributor import Attributor

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    import torch

    from bmrl.inference.attribution import Attribution
    from bmrl.models import BMRL

__all__ = ["attribute"]


def attribute(
    model: BMRL | str | os.PathLike[str],
    images: Iterable[Any] | str | os.PathLike[str],
    *,
    threshold: float | None = None,
    max_error: float | None = None,
    batch_size: int = 32,
    device: str | torch.device = "auto",
) -> list[Attribution]:
    """Say of face images which generator made them, or that none of the seen ones did.

    For one call; an :class:`~bmrl.inference.Attributor` keeps the model for several, and yields the answers of any
    number of images one after the other.

    Args:
        model: a model or its folder.
        images: each a path, the bytes of a file, a binary file or a ``PIL.Image``; or one path.
        threshold: the paper's rule: images whose maximum probability is below it are called unseen; 0 .. 1. None: the
            model's fitted decision if its ``config.decision`` names a score, else the first of its ``thresholds``.
        max_error: share of seen pictures that may get a wrong name, for a model with a fitted decision; above 0 and
            below 1. None: what ``config.decision`` says.
        batch_size: images per batch, >= 1.
        device: where to run, as PyTorch names devices; ``"auto"`` leaves a model that is passed where it is, and puts
            one from a folder on the accelerator if there is one, and else on the CPU.

    Returns:
        One :class:`~bmrl.inference.Attribution` per image, in order.

    Raises:
        ImageError, MissingFileError: the first image that can't be read.
        RangeError, DTypeError, ConfigError, DeviceError, ModelFolderError: as of :class:`~bmrl.inference.Attributor`.

    Example:
        >>> from PIL import Image
        >>> import bmrl
        >>> model = bmrl.build_model(bmrl.presets.tiny(num_generators=2))
        >>> (answer,) = attribute(model, [Image.new("RGB", (64, 64))], threshold=0.9)
        >>> answer.seen, answer.threshold
        (False, 0.9)
    """
    return Attributor(model, threshold=threshold, max_error=max_error, batch_size=batch_size, device=device)(images)
