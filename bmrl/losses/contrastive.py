r"""Symmetric contrastive alignment of paired embeddings: eq. 8-11 of arXiv:2504.14129.

The CPC loss aligns images with their parsing maps, the CMC loss images with their prompts; they differ in the sample
pair attention that the second may use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrl._checks import check_choice, check_dtype, check_floating, check_same_device, check_shape
from bmrl._transforms import has_values
from bmrl.errors import DTypeError, ShapeError
from bmrl.losses._arguments import check_count, check_finite_positive
from bmrl.losses._batches import check_batch, check_finite, check_labels
from bmrl.losses._chunks import check_no_vmap, chunks, only_once, rows_a_chunk
from bmrl.losses._gather import GroupReference, check_gather, gather_for, gather_rows
from bmrl.losses._precision import compute_dtype, no_autocast
from bmrl.losses._reductions import REDUCTIONS, Reduction, reduced
from bmrl.losses._temperature import bounded_temperature, log_scale_parameter

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["CMCLoss", "CPCLoss", "contrastive_loss"]

Targets = Literal["diagonal", "same_label"]
_TARGETS = ("diagonal", "same_label")

_CHUNK_PAIRS = 2**20
_TINY = 1e-15


def contrastive_loss(
    visual: Tensor,
    paired: Tensor,
    labels: Tensor | None = None,
    *,
    temperature: float | Tensor = 0.07,
    targets: Targets = "diagonal",
    gate: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
    chunk_size: int | None = None,
    gather: bool = False,
    group: ProcessGroup | None = None,
) -> Tensor:
    r"""Mean of the two cross-entropies that match each row to its partner, and back (symmetric InfoNCE).

    .. math::
        L = -\frac{1}{2b} \sum_{u, v} t_{uv} \Bigl(
            \log \frac{\exp(s_{uv} / \tau)}{\sum_n \exp(s_{un} / \tau)}
            + \log \frac{\exp(s_{vu} / \tau)}{\sum_n \exp(s_{nu} / \tau)} \Bigr)

    with cosine similarities :math:`s_{uv}` and target rows t that sum to 1 (eq. 8-11 of arXiv:2504.14129).

    Memory grows as ``batch ** 2`` up to ``chunk_size`` rows, and as ``batch`` above: the similarities are then made
    for a chunk of rows at a time, once forward and once backward, and only their log-sum-exps are kept. That form
    has no second derivative.

    Args:
        visual: ``(batch, dim)``, floating point, batch >= 1; normalized inside, so any scale. A zero row (to
            float32, also one below 1e-35) has similarity 0 to all.
        paired: ``(batch, dim)``, floating point; row u belongs to row u of ``visual``.
        labels: ``(batch,)`` int64, the generator of each row; needed for ``targets="same_label"``.
        temperature: tau > 0; a number, or a scalar tensor, ``()`` or ``(1,)``, floating point (whose value is checked
            on the CPU alone).
        targets: ``"diagonal"``, the paper's: a row's own partner is the one positive; or ``"same_label"``: all rows of
            equal label are positives with equal weight, for partners that repeat within a generator, such as prompts.
        gate: ``(n, n)`` with n >= batch, floating point: similarities are multiplied by the sigmoid of its leading
            ``(batch, batch)`` block (sample pair attention). None multiplies by 1.
        mask: ``(batch,)`` bool; rows where it is False take no part: neither as queries, nor as negatives, nor in the
            mean. Fewer than two rows left give 0. None keeps all.
        reduction: ``"mean"`` over the rows that take part, ``"sum"``, or ``"none"``: the loss of each row, the mean of
            its two cross-entropies; 0 where the mask is False.
        chunk_size: rows whose similarities to all others are held at once, >= 1; at least ``batch`` for the dense
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
        RangeError: a value that is not finite, ``temperature`` not positive, ``chunk_size`` below 1, or an unknown
            ``targets`` or ``reduction``.
        ConfigError: ``group`` without ``gather``, or settings that differ between processes.
        RuntimeError: the gradient of a loss computed in chunks is differentiated again.

    Example:
        >>> contrastive_loss(torch.eye(3), torch.eye(3), temperature=1.0)
        tensor(0.5514)
    """
    check_gather(gather, group)
    if gather:
        same = {"loss": "contrastive_loss", "temperature": temperature, "targets": targets, "gate": gate}
        same |= {"reduction": reduction, "chunk_size": chunk_size}
        rows = {"visual": visual, "paired": paired, "labels": labels, "mask": mask}
        visual, paired, labels, mask = gather_rows(rows, group=group, same=same)
    check_batch("visual", visual)
    check_shape("paired", paired, "batch dim")
    check_floating("paired", paired)
    if paired.shape != visual.shape:
        raise ShapeError(f"paired: expected the shape of visual {tuple(visual.shape)}, got {tuple(paired.shape)}")
    check_same_device("paired", paired, "visual", visual)
    temperature = _checked_temperature(temperature, visual)
    check_choice("targets", targets, _TARGETS)
    check_choice("reduction", reduction, REDUCTIONS)
    batch = visual.shape[0]
    if labels is None and targets == "same_label":
        raise DTypeError("labels: expected a torch.Tensor for targets='same_label', got None")
    if labels is not None:
        check_labels(labels, "visual", visual)
    pairs = _Pairs(
        labels=labels if targets == "same_label" else None,
        gate=None if gate is None else _leading_block(gate, visual),
        mask=None if mask is None else _checked_mask(mask, visual),
    )
    chunk_size = rows_a_chunk(chunk_size, batch, of_large=_CHUNK_PAIRS // batch)
    dtype = compute_dtype(visual, paired)
    with no_autocast(visual):
        queries = _of_length(1 / temperature, "visual", visual.to(dtype))
        keys = _of_length(1.0, "paired", paired.to(dtype))
        if chunk_size < batch:
            check_no_vmap()
            both_ways = _ChunkedCrossEntropies.apply(queries, keys, *pairs, chunk_size)[0]
        else:
            logits = pairs.logits(queries @ keys.mT, slice(0, batch))
            if pairs.labels is None:
                # Transposed, not along the columns: there the kernel loses the digits of a small loss.
                both_ways = -(logits.log_softmax(1) + logits.mT.log_softmax(1)).diagonal()
            else:
                target = pairs.targets(slice(0, batch), logits)
                there = F.cross_entropy(logits, target, reduction="none")
                both_ways = there + F.cross_entropy(logits.mT, target, reduction="none")
        num_rows = None if pairs.mask is None else pairs.mask.sum().clamp(min=1)
        return reduced(both_ways / 2, reduction, num_rows)


def _of_length(length: float | Tensor, name: str, rows: Tensor) -> Tensor:
    """Rows at one length, whatever their scale, once checked to be finite.

    A zero row stays zero and gets a finite gradient.
    """
    norms = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    if has_values(norms):
        shortest, longest = norms.detach().aminmax()
        if float(shortest) > _TINY and float(longest) < 1 / _TINY:  # nearly always, and finite then
            return rows * (length / norms)
        check_finite(name, rows)
    # The largest element is taken to 1 first, so that squares stay in the range of the dtype. A direction does not
    # depend on scale, which therefore needs no gradient.
    largest = rows.detach().abs().amax(-1, keepdim=True)
    rows = rows / torch.where(largest > 1e3 * torch.finfo(rows.dtype).tiny, largest, 1.0)
    norms = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows * (length / (norms + (norms == 0)))


class _Pairs(NamedTuple):
    """What is known of the ``(batch, batch)`` pairs, in linear memory but for the gate; each may be None.

    ``rows`` are those of the matrix of which a method makes a chunk.
    """

    labels: Tensor | None
    gate: Tensor | None
    mask: Tensor | None

    def logits(self, similarities: Tensor, rows: slice) -> Tensor:
        """Gated and masked similarities ``(rows, batch)``.

        A masked row keeps only itself: its cross-entropy and its gradient are then exactly 0, without a selection
        whose size a GPU would have to report. The fill is finite because 0 * -inf is NaN.
        """
        if self.gate is not None:
            similarities = similarities * self.gate[rows].to(similarities.dtype).sigmoid()
        if self.mask is not None:
            similarities = similarities.masked_fill(~self._kept(self.mask, rows), torch.finfo(similarities.dtype).min)
        return similarities

    def targets(self, rows: slice, like: Tensor) -> Tensor:
        """Target probabilities: ``(rows,)`` indices of the one positive, or ``(rows, batch)`` rows that sum to 1."""
        if self.labels is None:
            return torch.arange(rows.start, rows.stop, device=like.device)
        positives = self.labels[rows, None] == self.labels[None, :]
        if self.mask is not None:
            positives = positives & self._kept(self.mask, rows)
        target = positives.to(like.dtype)
        return target / target.sum(-1, keepdim=True)

    @staticmethod
    def _kept(mask: Tensor, rows: slice) -> Tensor:
        places = torch.arange(mask.shape[0], device=mask.device)
        return (mask[rows, None] & mask[None, :]) | (places[rows, None] == places[None, :])


class _ChunkedCrossEntropies(torch.autograd.Function):
    """Both cross-entropies of each row, added, in memory linear in the batch.

    The forward pass keeps the log-sum-exp of every row and column. The backward pass makes the logits again, a chunk
    of rows at a time, and from them the gradient: the softmaxes by rows and by columns less the targets.
    """

    @staticmethod
    def forward(
        queries: Tensor,
        keys: Tensor,
        labels: Tensor | None,
        gate: Tensor | None,
        mask: Tensor | None,
        chunk_size: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        in_chunks = _cross_entropies_op if torch.compiler.is_compiling() else _cross_entropies
        return in_chunks(queries, keys, labels, gate, mask, chunk_size)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        *tensors, ctx.chunk_size = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*tensors, *output[1:])

    @staticmethod
    def backward(ctx: Any, slopes: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        check_no_vmap()
        queries, keys, labels, gate, mask, by_row, by_column = ctx.saved_tensors
        in_chunks = _cross_entropies_backward_op if torch.compiler.is_compiling() else _cross_entropies_backward
        with_gate = gate is not None and ctx.needs_input_grad[3]
        to_queries, to_keys, to_gate = in_chunks(
            slopes, queries, keys, labels, gate, mask, by_row, by_column, ctx.chunk_size, with_gate
        )
        by = (slopes, queries, keys) if gate is None else (slopes, queries, keys, gate)
        once_to_gate = only_once(to_gate, *by) if with_gate else None
        return only_once(to_queries, *by), only_once(to_keys, *by), None, once_to_gate, None, None


def _cross_entropies(
    queries: Tensor, keys: Tensor, labels: Tensor | None, gate: Tensor | None, mask: Tensor | None, chunk_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Both cross-entropies of each row, added, and the log-sum-exps of rows and columns: three times ``(batch,)``."""
    pairs, batch = _Pairs(labels, gate, mask), queries.shape[0]
    row_positive, row_max, row_sum = (queries.new_empty(batch) for _ in range(3))
    column_positive, column_sum = (queries.new_zeros(batch) for _ in range(2))
    column_max = queries.new_full((batch,), -torch.inf)
    for rows in chunks(batch, chunk_size):
        logits = pairs.logits(queries[rows] @ keys.mT, rows)
        target = pairs.targets(rows, logits)
        if labels is None:
            row_positive[rows] = column_positive[rows] = logits.gather(1, target[:, None]).squeeze(1)
        else:
            positives = logits * target
            row_positive[rows] = positives.sum(1)
            column_positive = column_positive + positives.sum(0)  # targets are symmetric
        row_max[rows] = logits.amax(1)
        row_sum[rows] = (logits - row_max[rows, None]).exp_().sum(1)
        new_max = torch.maximum(column_max, logits.amax(0))
        column_sum = column_sum * (column_max - new_max).exp() + (logits - new_max).exp_().sum(0)
        column_max = new_max
    # Differences first: a log-sum-exp minus its positive would lose a small loss to rounding.
    both_ways = (row_max - row_positive) + (column_max - column_positive) + row_sum.log() + column_sum.log()
    return both_ways, row_max + row_sum.log(), column_max + column_sum.log()


def _cross_entropies_backward(
    slopes: Tensor,
    queries: Tensor,
    keys: Tensor,
    labels: Tensor | None,
    gate: Tensor | None,
    mask: Tensor | None,
    by_row: Tensor,
    by_column: Tensor,
    chunk_size: int,
    with_gate: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and gate (no elements unless asked for) from those of :func:`_cross_entropies`."""
    pairs = _Pairs(labels, gate, mask)
    to_queries, to_keys = torch.empty_like(queries), torch.zeros_like(keys)
    to_gate = queries.new_empty((0,)) if gate is None or not with_gate else torch.empty_like(gate)
    with no_autocast(queries):
        for rows in chunks(queries.shape[0], chunk_size):
            similarities = queries[rows] @ keys.mT
            logits = pairs.logits(similarities, rows)
            gradient = (logits - by_row[rows, None]).exp_().mul_(slopes[rows, None])
            gradient.addcmul_((logits - by_column).exp_(), slopes)
            target = pairs.targets(rows, logits)
            if labels is None:
                gradient.scatter_add_(1, target[:, None], -2 * slopes[rows, None])
            else:
                gradient.addcmul_(slopes[rows, None] + slopes, target, value=-1)  # targets are symmetric
            if gate is not None:
                opening = gate[rows].to(queries.dtype).sigmoid()
                if with_gate:
                    to_gate[rows] = gradient * similarities * opening * (1 - opening)
                gradient.mul_(opening)
            to_queries[rows] = gradient @ keys
            to_keys.addmm_(gradient.mT, queries[rows])
    return to_queries, to_keys, to_gate


# Operators that the compiler does not look into: the number of chunks depends on the batch, and each batch size would
# be compiled anew.
_cross_entropies_op = torch.library.custom_op("bmrl::contrastive_in_chunks", _cross_entropies, mutates_args=())
_cross_entropies_backward_op = torch.library.custom_op(
    "bmrl::contrastive_in_chunks_backward", _cross_entropies_backward, mutates_args=()
)


@_cross_entropies_op.register_fake
def _(queries: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    batch = queries.shape[0]
    return queries.new_empty(batch), queries.new_empty(batch), queries.new_empty(batch)


@_cross_entropies_backward_op.register_fake
def _(
    slopes: Tensor, queries: Tensor, keys: Tensor, labels: Tensor | None, gate: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    to_gate = torch.empty_like(gate) if gate is not None and rest[-1] else queries.new_empty((0,))
    return torch.empty_like(queries), torch.empty_like(keys), to_gate


def _checked_temperature(temperature: float | Tensor, visual: Tensor) -> float | Tensor:
    if not isinstance(temperature, Tensor):
        check_finite_positive("temperature", temperature)
        return float(temperature)
    check_floating("temperature", temperature)
    if temperature.shape not in ((), (1,)):
        raise ShapeError(f"temperature: expected a number or a scalar, got shape {tuple(temperature.shape)}")
    if has_values(temperature):
        check_finite_positive("temperature", float(temperature.detach()))
    return temperature


def _leading_block(gate: Tensor, visual: Tensor) -> Tensor:
    batch = visual.shape[0]
    check_shape("gate", gate, "rows columns")
    check_floating("gate", gate)
    check_same_device("gate", gate, "visual", visual)
    if batch > min(gate.shape):
        raise ShapeError(f"gate: expected at least the batch ({batch}, {batch}), got {tuple(gate.shape)}")
    leading = gate[:batch, :batch]
    check_finite("gate", leading)
    return leading


def _checked_mask(mask: Tensor, visual: Tensor) -> Tensor:
    check_shape("mask", mask, "batch", batch=visual.shape[0])
    check_dtype("mask", mask, torch.bool)
    check_same_device("mask", mask, "visual", visual)
    return mask


class CPCLoss(nn.Module):
    """Cross-perspective contrastive loss: :func:`contrastive_loss` of images and parsing maps.

    The temperature is learned as ``log_scale``, log(1 / temperature), with 1 / temperature at most 100 as in CLIP.
    Give it a learning rate of its own and no weight decay.

    Args:
        temperature: where the temperature starts, >= 0.01.
        targets: see :func:`contrastive_loss`.
        reduction: see :func:`contrastive_loss`.
        chunk_size: see :func:`contrastive_loss`.
        gather: see :func:`contrastive_loss`. The temperatures of all processes are set to that of the first.
        group: see :func:`contrastive_loss`.

    Raises:
        DTypeError, RangeError: an argument is of the wrong type or out of range.

    Example:
        >>> loss = CPCLoss()
        >>> loss(torch.randn(4, 16), torch.randn(4, 16)).shape
        torch.Size([])
    """

    def __init__(
        self,
        *,
        temperature: float = 0.07,
        targets: Targets = "diagonal",
        reduction: Reduction = "mean",
        chunk_size: int | None = None,
        gather: bool = False,
        group: ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        check_gather(gather, group)
        check_choice("targets", targets, _TARGETS)
        check_choice("reduction", reduction, REDUCTIONS)
        check_count("chunk_size", chunk_size, optional=True)
        self.targets: Targets = targets
        self.reduction: Reduction = reduction
        self.chunk_size = chunk_size
        self.gather = gather
        self._group = GroupReference(group)
        self.log_scale = log_scale_parameter(temperature)

    def forward(
        self, visual: Tensor, parsing: Tensor, labels: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """The loss of two ``(batch, dim)`` embeddings; ``labels`` and ``mask`` as in :func:`contrastive_loss`."""
        if self.gather:
            rows = {"visual": visual, "parsing": parsing, "labels": labels, "mask": mask}
            visual, parsing, labels, mask = gather_for(self, self._group, **rows)
        temperature = bounded_temperature(self.log_scale)
        return contrastive_loss(
            visual,
            parsing,
            labels,
            temperature=temperature,
            targets=self.targets,
            mask=mask,
            reduction=self.reduction,
            chunk_size=self.chunk_size,
        )

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
        reduction: see :func:`contrastive_loss`.
        chunk_size: see :func:`contrastive_loss`; the gate and its gradient are never cut.
        gather: see :func:`contrastive_loss`. The temperatures and gates of all processes are set to those of the
            first. The gate must be as large as the batch of all processes.
        group: see :func:`contrastive_loss`.

    Raises:
        DTypeError, RangeError: an argument is of the wrong type or out of range.

    Example:
        >>> loss = CMCLoss(spa_batch_size=8)
        >>> loss(torch.randn(4, 16), torch.randn(4, 16)).shape
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
        chunk_size: int | None = None,
        gather: bool = False,
        group: ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        check_gather(gather, group)
        check_choice("targets", targets, _TARGETS)
        check_choice("reduction", reduction, REDUCTIONS)
        check_count("chunk_size", chunk_size, optional=True)
        check_count("spa_batch_size", spa_batch_size, optional=True)
        self.targets: Targets = targets
        self.reduction: Reduction = reduction
        self.spa_batch_size = spa_batch_size
        self.chunk_size = chunk_size
        self.gather = gather
        self._group = GroupReference(group)
        self.log_scale = log_scale_parameter(temperature)
        gate = None if spa_batch_size is None else nn.Parameter(torch.zeros(spa_batch_size, spa_batch_size))
        self.register_parameter("gate", gate)

    def forward(self, visual: Tensor, language: Tensor, labels: Tensor | None = None) -> Tensor:
        """The loss of two ``(batch, dim)`` embeddings; ``labels`` as in :func:`contrastive_loss`."""
        if self.gather:
            rows = {"visual": visual, "language": language, "labels": labels}
            visual, language, labels = gather_for(self, self._group, **rows)
        temperature = bounded_temperature(self.log_scale)
        return contrastive_loss(
            visual,
            language,
            labels,
            temperature=temperature,
            targets=self.targets,
            gate=self.gate,
            reduction=self.reduction,
            chunk_size=self.chunk_size,
        )

    def extra_repr(self) -> str:
        """The arguments, as ``print`` shows them."""
        return f"targets={self.targets!r}, spa_batch_size={self.spa_batch_size}"
