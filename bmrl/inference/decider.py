"""From a model's logits and embedding to probabilities and score: the module that every place shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bmrl._text import one_line
from bmrl.errors import ConfigError
from bmrl.inference.calibration import limits_for
from bmrl.inference.limits import Limits
from bmrl.inference.scores import SCORES, MaxProbability

if TYPE_CHECKING:
    from bmrl.inference.scores import Score
    from bmrl.models import BMRL, FittedDecision

__all__ = ["Decider", "decider_of", "limits_of"]


class Decider(nn.Module):
    """Turns logits and embedding into probabilities and a score; the verdict follows from :class:`Limits`.

    Args:
        score: None is the paper's, the maximum probability.
        temperature: > 0, what logits are divided by.

    Example:
        >>> probabilities, score = Decider()(torch.tensor([[2.0, 0.0]]), torch.zeros(1, 8))
        >>> bool(score[0] == probabilities[0].max())
        True
    """

    def __init__(self, score: Score | None = None, temperature: float = 1.0) -> None:
        super().__init__()
        self.score = MaxProbability() if score is None else score
        self.temperature = float(temperature)

    @classmethod
    def of(cls, fitted: FittedDecision | None) -> Decider:
        """Return that of a fitted decision; of None, the paper's.

        Raises:
            ConfigError: there is no such score, or the decision holds the state of another one.
        """
        if fitted is None:
            return cls()
        if fitted.score not in SCORES:
            raise ConfigError(f"decision.score: expected {' or '.join(SCORES)}, got {fitted.score!r}")
        try:
            score = SCORES[fitted.score].from_state(dict(fitted.state))
        except ValueError as error:
            raise ConfigError(f"decision: expected what {fitted.score} was fitted to: {error}") from error
        return cls(score, fitted.temperature)

    def forward(self, logits: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Decide about a batch.

        Args:
            logits: ``(batch, x)``, floating point.
            embedding: ``(batch, d)``, floating point.

        Returns:
            Probabilities ``(batch, x)`` and score ``(batch,)``, float32.
        """
        scaled = logits.float()
        if self.temperature != 1:
            scaled = scaled / self.temperature
        return scaled.softmax(dim=-1), self.score(scaled, embedding.float())


def decider_of(model: BMRL, *, paper_rule: bool = False) -> Decider:
    """Return what decides about a model's answers, on its device: its fitted decision, or the paper's rule.

    Args:
        model: whose configuration says which score is wanted.
        paper_rule: score by the maximum probability, also where another score is fitted; its temperature stays.

    Raises:
        ConfigError: the configuration asks for a score that was not fitted, or what was fitted does not fit the model.
    """
    wanted = model.config.decision.score
    fitted = model.decision if wanted is not None else None
    if paper_rule:
        return Decider(temperature=1.0 if fitted is None else fitted.temperature)
    if wanted is not None and (fitted is None or fitted.score != wanted):
        got = "none" if fitted is None else repr(fitted.score)
        raise ConfigError(
            f"decision.score: expected a model with {wanted!r} fitted, got {got}; fit it with bmrl calibrate, or set "
            "decision.score to null for the paper's rule"
        )
    decider = Decider.of(fitted)
    _check_fits(decider, model)
    device = next(model.parameters(), torch.empty(0)).device
    return decider.to(device)


def _check_fits(decider: Decider, model: BMRL) -> None:
    """Let a decider answer once: what a file holds may be of any size, and may divide by zero.

    Raises:
        ConfigError: it gives no finite answer about a model's logits and embeddings.
    """
    device = next(decider.buffers(), torch.empty(0)).device
    logits = torch.zeros(1, len(model.config.generators), device=device)
    embedding = torch.zeros(1, model.config.embed_dim, device=device)
    try:
        with torch.no_grad():
            answers = decider(logits, embedding)
    except (RuntimeError, IndexError) as error:
        reason = one_line(error)
    else:
        if answers[1].shape == (1,) and all(answer.isfinite().all() for answer in answers):
            return
        reason = f"its score of zeros is {answers[1].tolist()}"
    raise ConfigError(
        f"decision: expected what was fitted to {logits.shape[1]} logits and embeddings of {embedding.shape[1]} "
        f"numbers: {reason}; fit it again with bmrl calibrate"
    )


def limits_of(
    model: BMRL,
    *,
    threshold: float | None = None,
    accept: float | None = None,
    typical: float | None = None,
    max_error: float | None = None,
) -> Limits:
    """Return a model's limits: those of its fitted decision, or its first threshold.

    Args:
        model: whose configuration says what is asked for.
        threshold: decides by the maximum probability alone, in 0 .. 1, also where another score is fitted.
        accept: in place of ``config.decision.accept``.
        typical: in place of ``config.decision.typical``.
        max_error: in place of ``config.decision.max_error``.

    Raises:
        ConfigError: a guarantee is asked for of a model without a fitted decision, together with ``threshold``, or
            one that takes more calibration pictures than there were.
        RangeError, DTypeError: a value is not in 0 .. 1.
    """
    asked = {"accept": accept, "typical": typical, "max_error": max_error}
    given = [name for name, value in asked.items() if value is not None]
    decision = model.config.decision
    if threshold is not None:
        if given:
            raise ConfigError(f"{given[0]}: expected none together with threshold, got {asked[given[0]]}")
        return Limits.of_threshold(threshold)
    if decision.score is None:
        if given:
            raise ConfigError(
                f"{given[0]}: expected a model whose decision is fitted, got one without; fit it with bmrl calibrate"
            )
        return Limits.of_threshold(decision.thresholds[0])
    decider_of(model)
    assert model.decision is not None
    return limits_for(
        model.decision,
        accept=decision.accept if accept is None else accept,
        typical=decision.typical if typical is None else typical,
        max_error=decision.max_error if max_error is None else max_error,
    )
