"""How a model is trained: plain data, and the recipe that belongs to each model preset."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from bmrl._checks import check_choice
from bmrl.errors import ConfigError

__all__ = ["TrainingConfig", "paper", "tiny"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """The training recipe. Defaults are the paper's (section 4.1), with 15 epochs before each learning-rate drop.

    Args:
        epochs: passes over the training images.
        batch_size: images a step.
        optimizer: ``"adam"`` (the paper), or ``"adamw"``, which decouples the weight decay.
        learning_rate: of the model.
        weight_decay: of the model.
        objective_learning_rate_scale: centres and temperatures learn this many times faster, without decay.
        drop_every: epochs after which the learning rate falls tenfold.
        ema_decay: the saved model is the exponential moving average of the weights with this decay a step; 0 is
            off, and the last weights are saved.
        flip: half of the training images are mirrored.
        shift: training images are moved by up to this many pixels each way (the border mirrors).
        precision: ``"32-true"``, ``"bf16-mixed"``, or ``"auto"``: bf16 where the hardware multiplies it (NVIDIA GPUs
            from Ampere on, CPUs with AMX), float32 elsewhere, where bf16 takes longer.
        keep: which weights become the model: ``"last"``, or ``"best"``, those of the epoch with the lowest
            validation loss.
        seed: of the initial weights, the order of the images and their augmentation.
        objective: arguments of :class:`~bmrl.losses.BMRLObjective` that differ from its defaults.

    Raises:
        ConfigError: a value is out of its range; the message names it.
    """

    epochs: int = 45
    batch_size: int = 32
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: float = 1e-4
    weight_decay: float = 1e-3
    objective_learning_rate_scale: float = 50.0
    drop_every: int = 15
    ema_decay: float = 0.0
    flip: bool = False
    shift: int = 0
    precision: Literal["auto", "32-true", "bf16-mixed"] = "32-true"
    keep: Literal["last", "best"] = "best"
    seed: int = 0
    objective: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "drop_every"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name}: expected an integer >= 1, got {value!r}")
        for name in ("weight_decay", "shift", "seed"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name}: expected >= 0, got {getattr(self, name)!r}")
        for name in ("learning_rate", "objective_learning_rate_scale"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}: expected > 0, got {getattr(self, name)!r}")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay: expected 0 <= ema_decay < 1, got {self.ema_decay!r}")
        check_choice("optimizer", self.optimizer, ("adam", "adamw"))
        check_choice("precision", self.precision, ("auto", "32-true", "bf16-mixed"))
        check_choice("keep", self.keep, ("last", "best"))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON can hold; the inverse of :meth:`from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TrainingConfig:
        """Make a recipe from plain data; unknown keys are a :class:`ConfigError`."""
        known = {entry.name for entry in dataclasses.fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise ConfigError(f"{unknown[0]}: expected one of {', '.join(sorted(known))}, got an unknown key")
        return cls(**data)


def paper(**changes: Any) -> TrainingConfig:
    """Return the paper's recipe: Adam, 1e-4, weight decay 1e-3, a tenth every 15 epochs, batch 32, no augmentation.

    The number of epochs was not published; 45 leaves the learning rate at a hundredth.
    """
    return TrainingConfig(**changes)


def tiny(**changes: Any) -> TrainingConfig:
    """Return the recipe of the tiny preset: few epochs at a higher rate, mirrored images, decoupled weight decay."""
    settings: dict[str, Any] = {
        "epochs": 12,
        "optimizer": "adamw",
        "learning_rate": 8e-4,
        "weight_decay": 0.02,
        "drop_every": 9,
        "flip": True,
        "precision": "auto",
        "keep": "last",
    }
    return TrainingConfig(**(settings | changes))
