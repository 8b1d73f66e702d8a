r"""The cross-modal contrastive (CMC) loss of images and prompts: section 3.6 of arXiv:2504.14129."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bmrl._values import check_choice
from bmrl.losses._arguments import check_count
from bmrl.losses._gather import GroupReference, check_gather, gather_for
from bmrl.losses._reductions import REDUCTIONS, Reduction
from bmrl.losses._temperature import bounded_temperature, log_scale_parameter
from bmrl.losses.contrastive import TARGETS, Targets, contrastive_loss

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["CMCLoss"]


class CMCLoss(nn.Module):
    """Cross-modal contrastive loss: :func:`contrastive_loss` of images and texts, with optional sample pair attention.

    The temperature is learned as in :class:`CPCLoss`. Sample pair attention (SPA) multiplies each similarity by the
    sigmoid of a learned gate. The gate belongs to the *places* in a batch, not to the samples there: it starts at 0,
    which halves all similarities, and a smaller batch uses its leading block.

    Args:
        temperature: where the temperature starts, >= 0.01.
        targets: see :func:`contrastive_loss`.
        spa_batch_size: side of the gate, the largest batch it can take; None for no attention.
        reduction: see :func:`contrastive_loss`.
        chunk_rows: see :func:`contrastive_loss`; the gate and its gradient are never cut.
        gather: see :func:`contrastive_loss`. The temperatures and gates of all processes are set to those of the
            first. The gate must be as large as the batch of all processes.
        group: see :func:`contrastive_loss`.

    Raises:
        DTypeError, RangeError: an argument is of the wrong type or out of range.
        ConfigError: ``group`` without ``gather``.

    Source: section 3.6 of arXiv:2504.14129, which refers to MFCLIP (arXiv:2409.09724), the source of SPA.

    Example:
        >>> import torch
        >>> loss = CMCLoss(targets="same_label", spa_batch_size=8)
        >>> loss(torch.randn(4, 16), torch.randn(4, 16), torch.tensor([0, 1, 1, 0])).shape
        torch.Size([])
    """

    gate: nn.Parameter | None

    def __init__(
        self,
        *,
        temperature: float = 0.07,
        targets: Targets = "diagonal",
        spa_batch_size: int | None = None,
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
        check_count("spa_batch_size", spa_batch_size, optional=True)
        self.targets: Targets = targets
        self.reduction: Reduction = reduction
        self.spa_batch_size = spa_batch_size
        self.chunk_rows = chunk_rows
        self.gather = gather
        self._group = GroupReference(group)
        self.log_scale = log_scale_parameter(temperature)
        gate = None if spa_batch_size is None else nn.Parameter(torch.zeros(spa_batch_size, spa_batch_size))
        self.register_parameter("gate", gate)

    def forward(self, embeddings: Tensor, paired_embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        """The loss of a batch of pairs.

        Args:
            embeddings: ``(batch, dim)``, floating point, batch >= 1: of the images; any scale.
            paired_embeddings: ``(batch, dim)``, floating point: of the texts, row for row.
            labels: ``(batch,)`` int64, the generator of each row; needed for ``targets="same_label"``.

        Returns:
            As :func:`contrastive_loss`: a scalar in nats, >= 0, or ``(batch,)`` for ``reduction="none"``.

        Raises:
            ShapeError: as :func:`contrastive_loss`, or the batch is larger than the gate.
            DTypeError, DeviceError, RangeError, ConfigError, RuntimeError: as :func:`contrastive_loss`.
        """
        if self.gather:
            rows = {"embeddings": embeddings, "paired_embeddings": paired_embeddings, "labels": labels}
            embeddings, paired_embeddings, labels = gather_for(self, self._group, **rows)
        return contrastive_loss(
            embeddings,
            paired_embeddings,
            labels,
            temperature=bounded_temperature(self.log_scale),
            targets=self.targets,
            gate=self.gate,
            reduction=self.reduction,
            chunk_rows=self.chunk_rows,
        )

    def extra_repr(self) -> str:
        """The arguments, as ``print`` shows them."""
        return f"targets={self.targets!r}, spa_batch_size={self.spa_batch_size}"
