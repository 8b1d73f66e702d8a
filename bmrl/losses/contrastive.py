r"""Symmetric contrastive alignment of paired embeddings: eq. 8-11 of arXiv:2504.14129.

The CPC loss aligns images with their parsing maps, the CMC loss images with their prompts; they differ in the sample
pair attention that the second may use.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrl._checks import (
    check_choice,
    check_dtype,
    check_floating,
    check_positive,
    check_same_device,
    check_shape,
)
from bmrl.errors import DTypeError, ShapeError
from bmrl.losses._batches import check_batch, check_labels
from bmrl.losses._temperature import bounded_temperature, log_scale_parameter

__all__ = ["CMCLoss", "CPCLoss", "contrastive_loss"]

Targets = Literal["diagonal", "same_label"]
_TARGETS = ("diagonal", "same_label")


def contrastive_loss(
    visual: Tensor,
    paired: Tensor,
    labels: Tensor | None = None,
    *,
    temperature: float | Tensor = 0.07,
    targets: Targets = "diagonal",
    gate: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Mean of the two cross-entropies that match each row to its partner, and back (symmetric InfoNCE).

    .. math::
        L = -\frac{1}{2b} \sum_{u, v} t_{uv} \Bigl(
            \log \frac{\exp(s_{uv} / \tau)}{\sum_n \exp(s_{un} / \tau)}
            + \log \frac{\exp(s_{vu} / \tau)}{\sum_n \exp(s_{nu} / \tau)} \Bigr)

    with cosine similarities :math:`s_{uv}` and target rows t that sum to 1 (eq. 8-11 of arXiv:2504.14129).

    Args:
        visual: ``(batch, dim)``, floating point, batch >= 1; normalised inside, so any scale. A zero row has
            similarity 0 to all.
        paired: ``(batch, dim)``, floating point; row u belongs to row u of ``visual``.
        labels: ``(batch,)`` int64, the generator of each row; needed for ``targets="same_label"``.
        temperature: tau > 0; a number, or a scalar tensor (whose value is not checked).
        targets: ``"diagonal"``, the paper's: a row's own partner is the one positive; or ``"same_label"``: all rows of
            equal label are positives with equal weight, for partners that repeat within a generator, such as prompts.
        gate: ``(n, n)`` with n >= batch, floating point: similarities are multiplied by the sigmoid of its leading
            ``(batch, batch)`` block (sample pair attention). None multiplies by 1.
        mask: ``(batch,)`` bool; rows where it is False take no part: neither as queries, nor as negatives, nor in the
            mean. Fewer than two rows left give 0. None keeps all.

    Returns:
        Scalar, in nats, >= 0, and log(batch) for uninformative embeddings; float32 at least (half inputs are upcast).

    Raises:
        ShapeError: a wrong number of axes, an empty batch, sizes that do not match, or a gate smaller than the batch.
        DTypeError: an input has the wrong dtype, or ``labels`` are needed and missing.
        DeviceError: the tensors are on different devices.
        RangeError: ``temperature`` is not positive, or an unknown ``targets``.

    Example:
        >>> contrastive_loss(torch.eye(3), torch.eye(3), temperature=1.0)
        tensor(0.5514)
    """
    check_batch("visual", visual)
    check_shape("paired", paired, "batch dim")
    check_floating("paired", paired)
    if paired.shape != visual.shape:
        raise ShapeError(f"paired: expected the shape of visual {tuple(visual.shape)}, got {tuple(paired.shape)}")
    check_same_device("paired", paired, "visual", visual)
    if not isinstance(temperature, Tensor):
        check_positive("temperature", temperature)
    positives = _positives(targets, labels, visual)
    compute_dtype = torch.promote_types(torch.promote_types(visual.dtype, paired.dtype), torch.float32)
    with torch.autocast(visual.device.type, enabled=False):
        logits = _unit(visual.to(compute_dtype)) @ _unit(paired.to(compute_dtype)).mT / temperature
        if gate is not None:
            logits = logits * _leading_block(gate, visual).to(compute_dtype).sigmoid()
        num_rows: int | Tensor = visual.shape[0]
        if mask is not None:
            # A masked row keeps only itself: its cross-entropy and its gradient are then exactly 0, without a
            # selection whose size a GPU would have to report. The fill is finite because 0 * -inf is NaN.
            kept = _kept_pairs(mask, visual)
            positives = positives & kept
            logits = logits.masked_fill(~kept, torch.finfo(compute_dtype).min)
            num_rows = mask.sum().clamp(min=1)
        target = positives.to(compute_dtype)
        target = target / target.sum(-1, keepdim=True)
        there = F.cross_entropy(logits, target, reduction="sum")
        back = F.cross_entropy(logits.mT, target, reduction="sum")
        return (there + back) / (2 * num_rows)


def _unit(rows: Tensor) -> Tensor:
    """Rows at length 1; a zero row stays zero and gets a finite gradient."""
    squares = rows.square().sum(-1, keepdim=True)
    return rows * torch.where(squares > 0, squares, 1.0).rsqrt()


def _positives(targets: Targets, labels: Tensor | None, visual: Tensor) -> Tensor:
    """Which pairs belong together: ``(batch, batch)`` bool, symmetric, with a True diagonal."""
    check_choice("targets", targets, _TARGETS)
    if targets == "diagonal":
        return torch.eye(visual.shape[0], dtype=torch.bool, device=visual.device)
    if labels is None:
        raise DTypeError("labels: expected a torch.Tensor for targets='same_label', got None")
    check_labels(labels, "visual", visual)
    return labels[:, None] == labels[None, :]


def _leading_block(gate: Tensor, visual: Tensor) -> Tensor:
    batch = visual.shape[0]
    check_shape("gate", gate, "rows columns")
    check_floating("gate", gate)
    check_same_device("gate", gate, "visual", visual)
    if batch > min(gate.shape):
        raise ShapeError(f"gate: expected at least the batch ({batch}, {batch}), got {tuple(gate.shape)}")
    return gate[:batch, :batch]


def _kept_pairs(mask: Tensor, visual: Tensor) -> Tensor:
    check_shape("mask", mask, "batch", batch=visual.shape[0])
    check_dtype("mask", mask, torch.bool)
    check_same_device("mask", mask, "visual", visual)
    return (mask[:, None] & mask[None, :]) | torch.eye(mask.shape[0], dtype=torch.bool, device=mask.device)


class CPCLoss(nn.Module):
    """Cross-perspective contrastive loss: :func:`contrastive_loss` of images and parsing maps.

    The temperature is learned as ``log_scale``, log(1 / temperature), with 1 / temperature at most 100 as in CLIP.
    Give it a learning rate of its own and no weight decay.

    Args:
        temperature: where the temperature starts, >= 0.01.
        targets: see :func:`contrastive_loss`.

    Raises:
        RangeError: an argument is out of range.

    Example:
        >>> loss = CPCLoss()
        >>> loss(torch.randn(4, 16), torch.randn(4, 16)).shape
        torch.Size([])
    """

    def __init__(self, *, temperature: float = 0.07, targets: Targets = "diagonal") -> None:
        super().__init__()
        check_choice("targets", targets, _TARGETS)
        self.targets: Targets = targets
        self.log_scale = log_scale_parameter(temperature)

    def forward(
        self, visual: Tensor, parsing: Tensor, labels: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """The loss of two ``(batch, dim)`` embeddings; ``labels`` and ``mask`` as in :func:`contrastive_loss`."""
        temperature = bounded_temperature(self.log_scale)
        return contrastive_loss(visual, parsing, labels, temperature=temperature, targets=self.targets, mask=mask)

    def extra_repr(self) -> str:
        """The arguments, as ``print`` shows them."""
        return f"targets={self.targets!r}"


class CMCLoss(nn.Module):
    """Cross-modal contrastive loss: :func:`contrastive_loss` of images and prompts, with optional attention to pairs.

    The temperature is learned as in :class:`CPCLoss`. Sample pair attention (SPA) multiplies each similarity by the
    sigmoid of a learned gate. The gate belongs to the *places* in a batch, not to what stands there: it starts at 0,
    which halves all similarities, and a smaller batch uses its leading block.

    Args:
        temperature: where the temperature starts, >= 0.01.
        targets: see :func:`contrastive_loss`.
        spa_batch_size: side of the gate, the largest batch it can take; None for no attention.

    Raises:
        RangeError: an argument is out of range.

    Example:
        >>> loss = CMCLoss(spa_batch_size=8)
        >>> loss(torch.randn(4, 16), torch.randn(4, 16)).shape
        torch.Size([])
    """

    gate: nn.Parameter | None

    def __init__(
        self, *, temperature: float = 0.07, targets: Targets = "diagonal", spa_batch_size: int | None = None
    ) -> None:
        super().__init__()
        check_choice("targets", targets, _TARGETS)
        if spa_batch_size is not None:
            check_positive("spa_batch_size", spa_batch_size)
        self.targets: Targets = targets
        self.spa_batch_size = spa_batch_size
        self.log_scale = log_scale_parameter(temperature)
        gate = None if spa_batch_size is None else nn.Parameter(torch.zeros(spa_batch_size, spa_batch_size))
        self.register_parameter("gate", gate)

    def forward(self, visual: Tensor, language: Tensor, labels: Tensor | None = None) -> Tensor:
        """The loss of two ``(batch, dim)`` embeddings; ``labels`` as in :func:`contrastive_loss`."""
        temperature = bounded_temperature(self.log_scale)
        return contrastive_loss(visual, language, labels, temperature=temperature, targets=self.targets, gate=self.gate)

    def extra_repr(self) -> str:
        """The arguments, as ``print`` shows them."""
        return f"targets={self.targets!r}, spa_batch_size={self.spa_batch_size}"
