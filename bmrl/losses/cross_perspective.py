r"""The cross-perspective contrastive (CPC) loss of images and parsing maps: eq. 8-11 of arXiv:2504.14129."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from bmrl._values import check_choice
from bmrl.losses._arguments import check_count
from bmrl.losses._gather import GroupReference, check_gather, gather_for
from bmrl.losses._reductions import REDUCTIONS, Reduction
from bmrl.losses._temperature import bounded_temperature, log_scale_parameter
from bmrl.losses.contrastive import TARGETS, Targets, contrastive_loss

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["CPCLoss"]


class CPCLoss(nn.Module):
    """Cross-perspective contrastive loss: :func:`contrastive_loss` of two views of each sample, such as a parsing map.

    The temperature is learned as ``log_scale``, log(1 / temperature), with 1 / temperature at most 100 as in CLIP.
    Give it its own learning rate and no weight decay.

    Args:
        temperature: where the temperature starts, >= 0.01.
        targets: see :func:`contrastive_loss`.
        reduction: see :func:`contrastive_loss`.
        chunk_rows: see :func:`contrastive_loss`.
        gather: see :func:`contrastive_loss`. The temperatures of all processes are set to that of the first.
        group: see :func:`contrastive_loss`.

    Raises:
        DTypeError, RangeError: an argument is of the wrong type or out of range.
        ConfigError: ``group`` without ``gather``.

    Source: section 3.6 (eq. 8-11) of arXiv:2504.14129.

    Example:
        >>> import torch
        >>> loss = CPCLoss()
        >>> images, parsing_maps = torch.randn(4, 16), torch.randn(4, 16)
        >>> has_parsing_map = torch.tensor([True, True, False, True])
        >>> loss(images, parsing_maps, mask=has_parsing_map).shape
        torch.Size([])
    """

    def __init__(
        self,
        *,
        temperature: float = 0.07,
        targets: Targets = "diagonal",
        reduction: Reduction = "mean",
        chunk_rows: int | None = None,
        gather: bool = False,
        group: ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        check_gather(gather, group)
        check_choice("targets", targets, TARGETS)
        check_choice("reduction", reduction, REDUCTIONS)
        check_count("chunk_rows", chunk_rows, optional=True)
        self.targets: Targets = targets
        self.reduction: Reduction = reduction
        self.chunk_rows = chunk_rows
        self.gather = gather
        self._group = GroupReference(group)
        self.log_scale = log_scale_parameter(temperature)

    def forward(
        self, embeddings: Tensor, paired_embeddings: Tensor, labels: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """The loss of a batch of pairs.

        Args:
            embeddings: ``(batch, dim)``, floating point, batch >= 1: of the images; any scale.
            paired_embeddings: ``(batch, dim)``, floating point: of the parsing maps, row for row.
            labels: ``(batch,)`` int64, the generator of each row; needed for ``targets="same_label"``.
            mask: ``(batch,)`` bool: rows where it is False take no part, for images without a parsing map.

        Returns:
            As :func:`contrastive_loss`: a scalar in nats, >= 0, or ``(batch,)`` for ``reduction="none"``.

        Raises:
            ShapeError, DTypeError, DeviceError, RangeError, ConfigError, RuntimeError: as :func:`contrastive_loss`.
        """
        if self.gather:
            rows = {"embeddings": embeddings, "paired_embeddings": paired_embeddings, "labels": labels, "mask": mask}
            embeddings, paired_embeddings, labels, mask = gather_for(self, self._group, **rows)
        return contrastive_loss(
            embeddings,
            paired_embeddings,
            labels,
            temperature=bounded_temperature(self.log_scale),
            targets=self.targets,
            mask=mask,
            reduction=self.reduction,
            chunk_rows=self.chunk_rows,
        )

    def extra_repr(self) -> str:
        """The arguments, as ``print`` shows them."""
        return f"targets={self.targets!r}"
