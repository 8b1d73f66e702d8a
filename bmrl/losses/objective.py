r"""The training objective of BMRL: the weighted sum of eq. 12 of arXiv:2504.14129."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrl._checks import check_shape, check_share
from bmrl._precision import compute_dtype, no_autocast
from bmrl._values import check_choice, check_switch
from bmrl.errors import ConfigError, DTypeError
from bmrl.losses._arguments import check_count, check_weight
from bmrl.losses._batches import check_batch, check_finite, check_labels
from bmrl.losses._gather import GroupReference, check_gather, gather_for
from bmrl.losses.alignment import Direction, LanguageAlignmentLoss
from bmrl.losses.center import ContrastiveCenterLoss
from bmrl.losses.contrastive import Targets  # noqa: TC001 - recipes read the annotations at run time
from bmrl.losses.cross_modal import CMCLoss
from bmrl.losses.cross_perspective import CPCLoss
from bmrl.losses.dfacc import DFACCLoss

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from bmrl.losses._initial_centers import CenterInit

__all__ = ["BMRLObjective", "ObjectiveResult"]

_TERMS = ("dfa", "dfacc", "vcc", "cmc", "cpc", "kl")


class ObjectiveResult(NamedTuple):
    """What :class:`BMRLObjective` returns.

    Attributes:
        total: scalar, float32 at least: the sum of the parts times their weights.
        parts: the terms that were computed, by name and *before* weighting; scalars that carry gradients.
    """

    total: Tensor
    parts: dict[str, Tensor]


class _Config(Protocol):
    """What the objective reads of a model's configuration."""

    @property
    def num_generators(self) -> int: ...
    @property
    def embed_dim(self) -> int: ...


class _Output(Protocol):
    """What the objective reads of a model's output."""

    @property
    def logits(self) -> Tensor: ...
    @property
    def probabilities(self) -> Tensor: ...
    @property
    def embedding(self) -> Tensor: ...
    @property
    def predicted_language(self) -> Tensor | None: ...
    @property
    def parsing(self) -> Tensor | None: ...
    @property
    def language(self) -> Tensor | None: ...


class _Rows(NamedTuple):
    """All that a term may ask for, of the batch of all processes."""

    logits: Tensor
    probabilities: Tensor
    embedding: Tensor
    predicted_language: Tensor | None
    parsing: Tensor | None
    language: Tensor | None
    parsing_mask: Tensor | None


class BMRLObjective(nn.Module):
    r"""The weighted sum of the terms that train BMRL (eq. 12 of arXiv:2504.14129), and each term by name.

    ========= ============================================================= =================================
    name      term                                                          computed when the output has
    ========= ============================================================= =================================
    ``dfa``   cross-entropy of the logits (eq. 3)                           always
    ``dfacc`` :class:`DFACCLoss`, if ``metric_loss="dfacc"``                always
    ``vcc``   :class:`ContrastiveCenterLoss`, if ``metric_loss="vcc"``      always
    ``cmc``   :class:`CMCLoss` of images and prompts                        ``language``
    ``cpc``   :class:`CPCLoss` of images and parsing maps                   ``parsing``
    ``kl``    :class:`LanguageAlignmentLoss`                                ``language``, ``predicted_language``
    ========= ============================================================= =================================

    A term of weight 0 is not computed and owns no parameters: under distributed training give weight 0 to the terms
    of a branch that is off. All parameters are centers, temperatures and the attention gate of ``cmc``: put
    ``objective.parameters()`` into a group with its own learning rate (50 times the model's is a good start) and
    no weight decay, and save the ``state_dict`` together with the model's.

    Args:
        config: anything with ``num_generators`` and ``embed_dim``, such as a ``BMRLConfig``.
        weights: weight >= 0 per name of a term; terms not named have weight 1.
        margin: of the DFACC loss.
        inter_weight: of the DFACC loss.
        dfacc_on: what ``dfacc`` and ``vcc`` act on: ``"embedding"``, the normalized image embedding, or
            ``"probability"``, the softmax over generators.
        metric_loss: ``"dfacc"``, ``"vcc"`` or ``"none"``.
        temperature: where the temperatures of ``cmc`` and ``cpc`` start.
        contrastive_targets: ``targets`` of :func:`contrastive_loss`, for ``cmc`` and ``cpc``.
        spa_batch_size: of the CMC loss.
        kl_direction: ``direction`` of :func:`language_alignment_loss`.
        kl_detach: ``detach`` of :func:`language_alignment_loss`.
        label_smoothing: of ``dfa``, in [0, 1).
        chunk_rows: of :func:`dfacc_loss` and :func:`contrastive_loss`.
        gather: the batch of every term is that of all processes, see :func:`dfacc_loss`. The parameters of all
            processes are set to those of the first.
        group: see :func:`dfacc_loss`.

    Raises:
        ConfigError: ``weights`` names an unknown term, or ``group`` without ``gather``.
        DTypeError, RangeError: an argument is of the wrong type or out of range.

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> objective = BMRLObjective(SimpleNamespace(num_generators=7, embed_dim=16), weights={"dfacc": 0.1})
        >>> output = SimpleNamespace(
        ...     logits=torch.zeros(4, 7), probabilities=torch.full((4, 7), 1 / 7),
        ...     embedding=torch.full((4, 16), 0.25), predicted_language=None, parsing=None, language=None)
        >>> result = objective(output, torch.tensor([0, 3, 3, 6]))
        >>> sorted(result.parts), round(result.parts["dfa"].item(), 4)
        (['dfa', 'dfacc'], 1.9459)
    """

    def __init__(
        self,
        config: _Config,
        *,
        weights: Mapping[str, float] | None = None,
        margin: float = 0.7,
        inter_weight: float = 0.5,
        dfacc_on: Literal["embedding", "probability"] = "embedding",
        metric_loss: Literal["dfacc", "vcc", "none"] = "dfacc",
        temperature: float = 0.07,
        contrastive_targets: Targets = "diagonal",
        spa_batch_size: int | None = None,
        kl_direction: Direction = "forward",
        kl_detach: bool = False,
        label_smoothing: float = 0.0,
        chunk_rows: int | None = None,
        gather: bool = False,
        group: ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        for name in ("num_generators", "embed_dim"):
            if not hasattr(config, name):
                raise DTypeError(f"config: expected num_generators and embed_dim, got {type(config).__name__}")
            check_count(name, getattr(config, name))
        check_gather(gather, group)
        check_switch("kl_detach", kl_detach)
        check_choice("dfacc_on", dfacc_on, ("embedding", "probability"))
        check_choice("metric_loss", metric_loss, ("dfacc", "vcc", "none"))
        check_share("label_smoothing", label_smoothing)
        self.weights = _all_weights({} if weights is None else weights)
        self.num_generators = config.num_generators
        self.dfacc_on = dfacc_on
        self.label_smoothing = float(label_smoothing)
        self.gather = gather
        self._group = GroupReference(group)

        on_embedding = dfacc_on == "embedding"
        shape = (config.num_generators, config.embed_dim if on_embedding else config.num_generators)
        init: CenterInit = "sphere" if on_embedding else "simplex"
        on = {name for name, weight in self.weights.items() if weight > 0}
        on -= {"dfacc", "vcc"} - {metric_loss}
        dfacc = DFACCLoss(*shape, margin=margin, inter_weight=inter_weight, chunk_rows=chunk_rows, init=init)
        vcc = ContrastiveCenterLoss(*shape, init=init)
        pairing: dict[str, Any] = {
            "temperature": temperature,
            "targets": contrastive_targets,
            "chunk_rows": chunk_rows,
        }
        cmc = CMCLoss(spa_batch_size=spa_batch_size, **pairing)
        cpc = CPCLoss(**pairing)
        kl = LanguageAlignmentLoss(direction=kl_direction, detach=kl_detach)
        # All are built, so that all arguments are checked; those that are off are dropped with their parameters.
        self.dfacc = dfacc if "dfacc" in on else None
        self.vcc = vcc if "vcc" in on else None
        self.cmc = cmc if "cmc" in on else None
        self.cpc = cpc if "cpc" in on else None
        self.kl = kl if "kl" in on else None

    def forward(self, output: _Output, labels: Tensor) -> ObjectiveResult:
        """The total and its parts for one training batch.

        Args:
            output: has ``logits`` and ``probabilities`` ``(batch, num_generators)``, ``embedding``
                ``(batch, embed_dim)``, and ``predicted_language``, ``parsing`` and ``language``, each
                ``(batch, embed_dim)`` or None. It may have ``parsing_mask``, ``(batch,)`` bool or None: rows where it
                is False have no parsing map and take no part in ``cpc``, which is 0 if fewer than two are left.
            labels: ``(batch,)`` int64 in 0..num_generators-1.

        Returns:
            An :class:`ObjectiveResult`.

        Raises:
            ShapeError, DTypeError, DeviceError, RangeError: as the terms do.
        """
        if self.gather:
            output, labels = self._gathered(output, labels)
        logits = output.logits
        check_batch("logits", logits)
        check_finite("logits", logits)
        check_shape("logits", logits, "batch num_generators", num_generators=self.num_generators)
        check_labels(labels, "logits", logits, num_generators=self.num_generators)
        points = output.embedding if self.dfacc_on == "embedding" else output.probabilities
        parts: dict[str, Tensor] = {}
        if self.weights["dfa"] > 0:
            parts["dfa"] = self._cross_entropy(logits, labels)
        if self.dfacc is not None:
            parts["dfacc"] = self.dfacc(points, labels)
        if self.vcc is not None:
            parts["vcc"] = self.vcc(points, labels)
        if self.cmc is not None and output.language is not None:
            parts["cmc"] = self.cmc(output.embedding, output.language, labels)
        if self.cpc is not None and output.parsing is not None:
            mask = getattr(output, "parsing_mask", None)
            parts["cpc"] = self.cpc(output.embedding, output.parsing, labels, mask=mask)
        if self.kl is not None and output.language is not None and output.predicted_language is not None:
            parts["kl"] = self.kl(output.language, output.predicted_language)
        total = torch.zeros((), dtype=compute_dtype(logits), device=logits.device)
        for name, part in parts.items():
            total = total + self.weights[name] * part
        return ObjectiveResult(total, parts)

    def _gathered(self, output: _Output, labels: Tensor) -> tuple[_Rows, Tensor]:
        """The output and the labels of all processes."""
        rows: dict[str, Any] = {name: getattr(output, name, None) for name in _Rows._fields}
        *gathered, labels = gather_for(self, self._group, **rows, labels=labels)
        return _Rows(*gathered), labels

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        with no_autocast(logits):
            return F.cross_entropy(logits.to(compute_dtype(logits)), labels, label_smoothing=self.label_smoothing)

    def extra_repr(self) -> str:
        """The weights, as ``print`` shows them."""
        return f"weights={self.weights}, dfacc_on={self.dfacc_on!r}, label_smoothing={self.label_smoothing}"


def _all_weights(weights: Mapping[str, float]) -> dict[str, float]:
    if not isinstance(weights, Mapping):
        raise DTypeError(f"weights: expected a mapping of terms to numbers, got {type(weights).__name__}")
    for name, weight in weights.items():
        if name not in _TERMS:
            raise ConfigError(f"weights: expected names among {', '.join(_TERMS)}, got {name!r}")
        check_weight(f"weights[{name!r}]", weight)
    return {name: float(weights.get(name, 1.0)) for name in _TERMS}
