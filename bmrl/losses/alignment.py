r"""Alignment of predicted and true language embeddings: the KL term of eq. 12 of arXiv:2504.14129."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from bmrl._precision import compute_dtype, no_autocast
from bmrl._values import check_choice, check_switch
from bmrl.losses._batches import check_batch, check_finite, check_paired
from bmrl.losses._gather import GroupReference, check_gather, gather_for, gather_rows
from bmrl.losses._reductions import REDUCTIONS, Reduction, reduced

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["Direction", "LanguageAlignmentLoss", "language_alignment_loss"]

Direction = Literal["forward", "reverse"]
_DIRECTIONS = ("forward", "reverse")


def language_alignment_loss(
    language_embeddings: Tensor,
    predicted_embeddings: Tensor,
    *,
    direction: Direction = "forward",
    detach: bool = False,
    reduction: Reduction = "mean",
    gather: bool = False,
    group: ProcessGroup | None = None,
) -> Tensor:
    r"""Mean Kullback-Leibler divergence between the softmaxes of paired language embeddings.

    .. math::
        L = \frac{1}{b} \sum_u \mathrm{KL}\bigl(\mathrm{softmax}(T_l^u) \,\Vert\,
            \mathrm{softmax}(T_{pre}^u)\bigr)

    The paper (arXiv:2504.14129, section 3.6) gives no formula; softmaxes over the axis ``dim`` of the raw
    embeddings, with no temperature, are our reading of it. The arguments are in the order of the formula; the
    divergence is not symmetric.

    Args:
        language_embeddings: ``(batch, dim)``, floating point, batch >= 1: T_l of the language encoder, not normalized.
        predicted_embeddings: ``(batch, dim)``, floating point: T_pre predicted from the images, row for row.
        direction: ``"forward"`` is KL(language || predicted), ``"reverse"`` is KL(predicted || language).
        detach: no gradient reaches ``language_embeddings``, so that only the prediction moves.
        reduction: ``"mean"`` over the rows, ``"sum"``, or ``"none"``: the divergence of each row.
        gather: the batch is that of all processes, see :func:`~bmrl.losses.dfacc_loss`.
        group: see :func:`~bmrl.losses.dfacc_loss`.

    Returns:
        Scalar, or ``(batch,)`` for ``reduction="none"``: >= 0 up to rounding, in nats; float32 at least (half inputs
        are upcast).

    Raises:
        ShapeError: an input is not 2-dimensional or has no rows, or their shapes differ.
        DTypeError: an input is not floating point, or another argument is of the wrong type.
        DeviceError: the inputs are on different devices.
        RangeError: a value that is not finite, or an unknown ``direction`` or ``reduction``.
        ConfigError: ``group`` without ``gather``, or settings that differ between processes.

    Example:
        >>> import torch
        >>> language, predicted = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 2.0]])
        >>> language_alignment_loss(language, predicted)
        tensor(0.4338)
    """
    check_gather(gather, group)
    if gather:
        same = {"loss": "language_alignment_loss", "direction": direction, "detach": detach, "reduction": reduction}
        rows = {"language_embeddings": language_embeddings, "predicted_embeddings": predicted_embeddings}
        language_embeddings, predicted_embeddings = gather_rows(rows, group=group, same=same)
    check_batch("language_embeddings", language_embeddings)
    check_finite("language_embeddings", language_embeddings)
    check_paired("predicted_embeddings", predicted_embeddings, "language_embeddings", language_embeddings)
    check_finite("predicted_embeddings", predicted_embeddings)
    check_choice("direction", direction, _DIRECTIONS)
    check_switch("detach", detach)
    check_choice("reduction", reduction, REDUCTIONS)
    dtype = compute_dtype(language_embeddings, predicted_embeddings)
    with no_autocast(language_embeddings):
        language = (language_embeddings.detach() if detach else language_embeddings).to(dtype).log_softmax(-1)
        predicted = predicted_embeddings.to(dtype).log_softmax(-1)
        p, q = (language, predicted) if direction == "forward" else (predicted, language)
        return reduced(F.kl_div(q, p, reduction="none", log_target=True).sum(-1), reduction)


class LanguageAlignmentLoss(nn.Module):
    """Module form of :func:`language_alignment_loss`; it has no parameters.

    Args:
        direction: ``"forward"``, KL(language || predicted), or ``"reverse"``, KL(predicted || language).
        detach: no gradient reaches the language embeddings, so that only the prediction moves.
        reduction: ``"mean"`` over the rows, ``"sum"``, or ``"none"``.
        gather: see :func:`language_alignment_loss`.
        group: see :func:`language_alignment_loss`.

    Raises:
        DTypeError, RangeError: an argument is of the wrong type, or an unknown ``direction`` or ``reduction``.
        ConfigError: ``group`` without ``gather``.

    Source: the KL term of eq. 12 of arXiv:2504.14129, section 3.6.

    Example:
        >>> import torch
        >>> loss = LanguageAlignmentLoss(detach=True)
        >>> predict = torch.nn.Linear(16, 8)
        >>> images, prompts = torch.randn(4, 16), torch.randn(4, 8)
        >>> loss(prompts, predict(images)).backward()
        >>> predict.weight.grad.shape
        torch.Size([8, 16])
    """

    def __init__(
        self,
        *,
        direction: Direction = "forward",
        detach: bool = False,
        reduction: Reduction = "mean",
        gather: bool = False,
        group: ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        check_choice("direction", direction, _DIRECTIONS)
        check_switch("detach", detach)
        check_gather(gather, group)
        check_choice("reduction", reduction, REDUCTIONS)
        self.direction: Direction = direction
        self.detach = detach
        self.reduction: Reduction = reduction
        self.gather = gather
        self._group = GroupReference(group)

    def forward(self, language_embeddings: Tensor, predicted_embeddings: Tensor) -> Tensor:
        """The divergence of a batch of pairs.

        Args:
            language_embeddings: ``(batch, dim)``, floating point, batch >= 1: the truth, not normalized.
            predicted_embeddings: ``(batch, dim)``, floating point: the prediction, row for row.

        Returns:
            As :func:`language_alignment_loss`: a scalar in nats, or ``(batch,)`` for ``reduction="none"``.

        Raises:
            ShapeError, DTypeError, DeviceError, RangeError, ConfigError: as :func:`language_alignment_loss`.
        """
        if self.gather:
            rows = {"language_embeddings": language_embeddings, "predicted_embeddings": predicted_embeddings}
            language_embeddings, predicted_embeddings = gather_for(self, self._group, **rows)
        return language_alignment_loss(
            language_embeddings,
            predicted_embeddings,
            direction=self.direction,
            detach=self.detach,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """The arguments, as ``print`` shows them."""
        return f"direction={self.direction!r}, detach={self.detach}"
