r"""Symmetric contrastive alignment of paired embeddings: eq. 8-11 of arXiv:2504.14129.

The CPC loss aligns images with their parsing maps, the CMC loss images with their prompts; they differ in the sample
pair attention that the second may use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from bmrl._checks import check_dtype, check_floating, check_same_device, check_shape
from bmrl._precision import compute_dtype, no_autocast
from bmrl._transforms import has_values
from bmrl._values import check_choice
from bmrl.errors import DTypeError, ShapeError
from bmrl.losses._arguments import check_count, check_finite_positive
from bmrl.losses._batches import check_batch, check_finite, check_labels, check_paired
from bmrl.losses._chunks import check_no_vmap, rows_per_chunk
from bmrl.losses._contrastive_chunks import CrossEntropiesOnce
from bmrl.losses._contrastive_pairs import Pairs, cross_entropies, of_length
from bmrl.losses._gather import check_gather, gather_rows
from bmrl.losses._reductions import REDUCTIONS, Reduction, reduced

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["TARGETS", "Targets", "contrastive_loss"]

Targets = Literal["diagonal", "same_label"]
TARGETS = ("diagonal", "same_label")

_CHUNK_PAIRS = 2**20


def contrastive_loss(
    embeddings: Tensor,
    paired_embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    temperature: float | Tensor = 0.07,
    targets: Targets = "diagonal",
    gate: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
    chunk_rows: int | None = None,
    gather: bool = False,
    group: ProcessGroup | None = None,
) -> Tensor:
    r"""Mean of the two cross-entropies that match each row to its partner, and back (symmetric InfoNCE).

    .. math::
        L = -\frac{1}{2b} \sum_{u, v} t_{uv} \Bigl(
            \log \frac{\exp(s_{uv} / \tau)}{\sum_n \exp(s_{un} / \tau)}
            + \log \frac{\exp(s_{vu} / \tau)}{\sum_n \exp(s_{nu} / \tau)} \Bigr)

    with cosine similarities :math:`s_{uv}` and target rows t that sum to 1 (eq. 8-11 of arXiv:2504.14129).

    Memory grows as ``batch ** 2`` up to ``chunk_rows`` rows, and as ``batch`` above: the similarities are then computed
    for one chunk of rows at a time, once forward and once backward, and only their log-sum-exps are kept. That form
    has no second derivative.

    Args:
        embeddings: ``(batch, dim)``, floating point, batch >= 1; normalized inside, so any scale. A zero row (to
            float32, also one below 1e-35) has similarity 0 to all.
        paired_embeddings: ``(batch, dim)``, floating point; row u belongs to row u of ``embeddings``.
        labels: ``(batch,)`` int64, the generator of each row; needed for ``targets="same_label"``.
        temperature: tau > 0; a number, or a scalar tensor, ``()`` or ``(1,)``, floating point (whose value is checked
            only on the CPU).
        targets: ``"diagonal"``, the paper's: a row's own partner is the one positive; or ``"same_label"``: all rows of
            equal label are positives with equal weight, for partners that repeat within a generator, such as prompts.
        gate: ``(n, n)`` with n >= batch, floating point: similarities are multiplied by the sigmoid of its leading
            ``(batch, batch)`` block (sample pair attention). None multiplies by 1.
        mask: ``(batch,)`` bool; rows where it is False take no part: neither as queries, nor as negatives, nor in the
            mean. Fewer than two rows left give 0. None keeps all.
        reduction: ``"mean"`` over the rows that take part, ``"sum"``, or ``"none"``: the loss of each row, the mean of
            its two cross-entropies; 0 where the mask is False.
        chunk_rows: rows whose similarities to all others are held at once, >= 1; at least ``batch`` for the dense
            form. None takes the dense form up to 1024 rows and chunks of 4 MiB of float32 similarities above.
        gather: the batch, with ``labels`` and ``mask``, is that of all processes, see
            :func:`~bmrl.losses.dfacc_loss`; ``gate`` and ``temperature`` must be equal in all of them.
        group: see :func:`~bmrl.losses.dfacc_loss`.

    Returns:
        Scalar, or ``(batch,)`` for ``reduction="none"``: in nats, >= 0, and log(batch) for uninformative embeddings;
        float32 at least (half inputs are upcast).

    Raises:
        ShapeError: a wrong number of axes, an empty batch, sizes that do not match, or a gate smaller than the batch.
        DTypeError: an argument has the wrong type or dtype, or ``labels`` are needed and missing.
        DeviceError: the tensors are on different devices.
        RangeError: a value that is not finite, ``temperature`` not positive, ``chunk_rows`` below 1, or an unknown
            ``targets`` or ``reduction``.
        ConfigError: ``group`` without ``gather``, or settings that differ between processes.
        RuntimeError: the gradient of a loss computed in chunks is differentiated again.

    Example:
        >>> import torch
        >>> contrastive_loss(torch.eye(3), torch.eye(3), temperature=1.0)
        tensor(0.5514)
        >>> contrastive_loss(torch.ones(3, 2), torch.ones(3, 2))  # uninformative: log(3)
        tensor(1.0986)
        >>> labels = torch.tensor([0, 0, 1])
        >>> prompts = torch.eye(2)[labels]  # the first two rows share a prompt
        >>> rows = contrastive_loss(prompts, prompts, labels, targets="same_label", reduction="none")
        >>> [round(row.item(), 4) for row in rows]  # log(2) where two rows share the target
        [0.6931, 0.6931, 0.0]
    """
    check_gather(gather, group)
    if gather:
        same = {"loss": "contrastive_loss", "temperature": temperature, "targets": targets, "gate": gate}
        same |= {"reduction": reduction, "chunk_rows": chunk_rows}
        rows = {"embeddings": embeddings, "paired_embeddings": paired_embeddings, "labels": labels, "mask": mask}
        embeddings, paired_embeddings, labels, mask = gather_rows(rows, group=group, same=same)
    check_batch("embeddings", embeddings)
    check_paired("paired_embeddings", paired_embeddings, "embeddings", embeddings)
    temperature = _checked_temperature(temperature)
    check_choice("targets", targets, TARGETS)
    check_choice("reduction", reduction, REDUCTIONS)
    if labels is None and targets == "same_label":
        raise DTypeError("labels: expected a torch.Tensor for targets='same_label', got None")
    if labels is not None:
        check_labels(labels, "embeddings", embeddings)
    pairs = Pairs(
        labels=labels if targets == "same_label" else None,
        gate=None if gate is None else _leading_block(gate, embeddings),
        mask=None if mask is None else _checked_mask(mask, embeddings),
    )
    check_count("chunk_rows", chunk_rows, optional=True)
    batch = embeddings.shape[0]
    num_held = rows_per_chunk(chunk_rows, batch, of_large=_CHUNK_PAIRS // batch)
    dtype = compute_dtype(embeddings, paired_embeddings)
    with no_autocast(embeddings):
        queries = of_length(1 / temperature, "embeddings", embeddings.to(dtype))
        keys = of_length(1.0, "paired_embeddings", paired_embeddings.to(dtype))
        if num_held < batch:
            check_no_vmap()
            both_ways = CrossEntropiesOnce.apply(queries, keys, *pairs, num_held)[0]
        else:
            both_ways = cross_entropies(queries, keys, pairs)
        num_rows = None if pairs.mask is None else pairs.mask.sum().clamp(min=1)
        return reduced(both_ways / 2, reduction, num_rows)


def _checked_temperature(temperature: float | Tensor) -> float | Tensor:
    if not isinstance(temperature, Tensor):
        check_finite_positive("temperature", temperature)
        return float(temperature)
    check_floating("temperature", temperature)
    if temperature.shape not in ((), (1,)):
        raise ShapeError(f"temperature: expected a number or a scalar, got shape {tuple(temperature.shape)}")
    if has_values(temperature):
        check_finite_positive("temperature", float(temperature.detach()))
    return temperature


def _leading_block(gate: Tensor, embeddings: Tensor) -> Tensor:
    batch = embeddings.shape[0]
    check_shape("gate", gate, "rows columns")
    check_floating("gate", gate)
    check_same_device("gate", gate, "embeddings", embeddings)
    if batch > min(gate.shape):
        raise ShapeError(f"gate: expected at least the batch ({batch}, {batch}), got {tuple(gate.shape)}")
    leading = gate[:batch, :batch]
    check_finite("gate", leading)
    return leading


def _checked_mask(mask: Tensor, embeddings: Tensor) -> Tensor:
    check_shape("mask", mask, "batch", batch=embeddings.shape[0])
    check_dtype("mask", mask, torch.bool)
    check_same_device("mask", mask, "embeddings", embeddings)
    return mask
