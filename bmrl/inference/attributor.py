"""Attribution of images with a model: the main entry point for inference (the command is ``bmrl attribute``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bmrl._checks import check_integer
from bmrl.errors import BMRLError
from bmrl.inference.attribution import Attribution, attributions_from_probabilities
from bmrl.inference.checks import check_rate
from bmrl.inference.decider import decider_of, limits_of
from bmrl.inference.reading import name_images, read_batches, read_named
from bmrl.inference.running import infer, resolve_model

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    import torch

    from bmrl.errors import ImageError, MissingFileError
    from bmrl.models import BMRL

__all__ = ["Attributor"]


class Attributor:
    """Says of face images which generator made them, or that none of the seen ones did.

    Args:
        model: a model or its folder; it runs in evaluation mode, and its own mode is put back after each batch.
        threshold: the paper's rule: images whose maximum probability is below it are called unseen; 0 .. 1. None: the
            model's fitted decision if its ``config.decision`` names a score, else the first of its ``thresholds``.
        max_error: share of seen pictures that may get a wrong name, for a model with a fitted decision; above 0 and
            below 1. None: what ``config.decision`` says.
        batch_size: images per step, >= 1.
        device: where to run, as PyTorch names devices; the model is moved there. ``"auto"`` leaves a model that is
            passed where it is, and puts one from a folder on the accelerator if there is one, and else on the CPU.

    Attributes:
        limits: what an image must reach to be called seen.

    Raises:
        RangeError: ``threshold``, ``max_error`` or ``batch_size`` is out of range.
        ConfigError: a guarantee is asked for of a model without a fitted decision, or its score was not fitted.
        DTypeError: an argument has the wrong type.
        DeviceError: there is no such device.
        MissingFileError, ModelFolderError: the folder holds no usable model.

    Example:
        >>> from PIL import Image
        >>> import bmrl
        >>> model = bmrl.build_model(bmrl.models.presets.tiny(num_generators=3))
        >>> (answer,) = Attributor(model, threshold=0.0)([Image.new("RGB", (64, 64))])
        >>> answer.source, answer.seen, sorted(answer.probabilities)
        ('image 0', True, ['generator_0', 'generator_1', 'generator_2'])
    """

    def __init__(
        self,
        model: BMRL | str | os.PathLike[str],
        *,
        threshold: float | None = None,
        max_error: float | None = None,
        batch_size: int = 32,
        device: str | torch.device = "auto",
    ) -> None:
        if threshold is not None:
            check_rate("threshold", threshold)
        check_integer("batch_size", batch_size, least=1)
        self.batch_size = batch_size
        self.model = resolve_model(model, device)
        self.limits = limits_of(self.model, threshold=threshold, max_error=max_error)
        self._decider = decider_of(self.model, paper_rule=threshold is not None)

    def __call__(self, images: Iterable[Any] | str | os.PathLike[str]) -> list[Attribution]:
        """Attribute images, all or none.

        Args:
            images: each a path, the bytes of a file, a binary file or a ``PIL.Image``; or one path.

        Returns:
            One :class:`Attribution` per image, in order.

        Raises:
            ImageError, MissingFileError: that of the first image that can't be read.
            DTypeError: ``images`` is neither one path nor an iterable.
        """
        answers = []
        for answer in self.attribute_each(images):
            if isinstance(answer, BMRLError):
                raise answer
            answers.append(answer)
        return answers

    def attribute_each(
        self, images: Iterable[Any] | str | os.PathLike[str]
    ) -> Iterator[Attribution | ImageError | MissingFileError]:
        """Yield, for each image in order, its :class:`Attribution` or the error that reading it raised.

        Any number of images can be passed: two batches are in memory at a time. Arguments are those of a call.
        """
        return self._stream(name_images(images))

    def _stream(self, named: Iterator[tuple[Any, str]]) -> Iterator[Attribution | ImageError | MissingFileError]:
        for batch in read_batches(named, self.model.config.image_size, self.batch_size, read=read_named):
            attributions: list[Attribution] = []
            if batch.images is not None:
                pairs = zip(batch.sources, batch.items, strict=True)
                names = [name for (_, name), item in pairs if isinstance(item, int)]
                output = infer(self.model, batch.images)
                probabilities, scores = self._decider(output.logits, output.embedding)
                attributions = attributions_from_probabilities(
                    probabilities, self.model.config.generators, self.limits, names, scores=scores
                )
            yield from (attributions[item] if isinstance(item, int) else item for item in batch.items)
