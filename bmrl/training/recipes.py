"""How a model is trained: plain data, and the recipe that belongs to each model preset."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from bmrl._fields import (
    LARGEST_COUNT,
    Bounds,
    Count,
    NotNegative,
    Positive,
    Share,
    check_fields,
    from_mapping,
    names_of,
    unknown_name,
    with_changes,
)
from bmrl._values import described
from bmrl.errors import ConfigError
from bmrl.training.objective_settings import checked_objective
from bmrl.training.picture_augmentation import AugmentationConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TrainingConfig", "paper", "recommended", "tiny"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """The training recipe. Defaults are the paper's (section 4.1), with 15 epochs before each learning-rate drop.

    Raises:
        ConfigError: a value of another type or out of its range; the message names it.
        RangeError: a value is none of its choices.

    Example:
        >>> recipe = TrainingConfig(epochs=3, objective={"margin": 0.5})
        >>> TrainingConfig.from_dict(recipe.to_dict()) == recipe
        True
    """

    epochs: Count = 45
    """Passes over the training images."""
    batch_size: Count = 32
    """Images per step."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """Adam as in the paper, or AdamW, which decouples the weight decay."""
    learning_rate: Positive = 1e-4
    """Of the model, before the first drop."""
    weight_decay: NotNegative = 1e-3
    """Of the model."""
    objective_learning_rate_scale: Positive = 50.0
    """Centers and temperatures learn this many times faster than the model, without weight decay."""
    drop_every: Count = 15
    """Epochs after which the learning rate falls tenfold, with the ``step`` schedule."""
    schedule: Literal["step", "cosine"] = "step"
    """How the learning rate falls: tenfold now and then (the paper), or along half a cosine, at each step, to zero."""
    warmup: Annotated[float, Bounds(least=0, below=1)] = 0.0
    """Share of the steps in which the learning rate rises from zero first."""
    ema_decay: Share = 0.0
    """Decay per step of the moving average of the weights that becomes the model; 0 keeps the weights themselves."""
    balance: Annotated[float, Bounds(least=0, most=1)] = 0.0
    """How far small classes are drawn more often, and large ones less: an epoch shows a class of n images in proportion
    to n to the power of one minus this. 0 draws each image once, 1 all classes equally often."""
    flip: bool = False
    """Mirror half of the training images."""
    shift: Annotated[int, Bounds(least=0, most=LARGEST_COUNT)] = 0
    """Move training images by up to this many pixels in each direction; the border is mirrored."""
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    """How training images are changed, as pictures on the web have been; none by default."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "32-true"
    """Of the arithmetic; auto is bf16 where the hardware multiplies it (NVIDIA GPUs from Ampere on, CPUs with AMX),
    and float32 elsewhere, where bf16 takes longer."""
    keep: Literal["last", "best"] = "best"
    """Which weights become the model: the last ones, or those of the epoch with the lowest validation loss."""
    seed: Annotated[int, Bounds(least=0, most=2**63 - 1)] = 0
    """Of the initial weights, the order of the images and their augmentation."""
    objective: dict[str, Any] = field(default_factory=dict)
    """Arguments of :class:`~bmrl.losses.BMRLObjective` that differ from its defaults."""

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "objective", checked_objective(self.objective))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON can hold; the inverse of :meth:`from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TrainingConfig:
        """Make a recipe from plain data; unknown keys are a :class:`ConfigError`."""
        if not isinstance(data, dict):
            raise ConfigError(f"recipe: expected fields by name, got {described(data)}")
        known = names_of(cls)
        for name in data:
            if name not in known[cls.__name__]:
                raise unknown_name(name, known)
        return cls(**data)

    def with_changes(self, changes: Mapping[str, Any]) -> TrainingConfig:
        """Return a recipe that differs in some fields.

        Args:
            changes: values by name; by dotted name those of ``augmentation``, such as ``augmentation.compress``.

        Raises:
            ConfigError: a name is not a field, or a value does not fit.
            RangeError: a value is none of its choices.
        """
        return from_mapping(TrainingConfig, with_changes(TrainingConfig, self.to_dict(), changes))


def paper(**changes: Any) -> TrainingConfig:
    """Return the paper's recipe: Adam, 1e-4, weight decay 1e-3, a tenth every 15 epochs, batch 32, no augmentation.

    The number of epochs was not published; 45 leaves the learning rate at a hundredth.
    """
    return TrainingConfig().with_changes(changes)


def tiny(**changes: Any) -> TrainingConfig:
    """Return the recipe of the tiny preset: few epochs at a higher rate, mirrored images, decoupled weight decay."""
    recipe = TrainingConfig(
        epochs=12,
        optimizer="adamw",
        learning_rate=8e-4,
        weight_decay=0.02,
        drop_every=9,
        flip=True,
        precision="auto",
        keep="last",
    )
    return recipe.with_changes(changes)


def recommended(**changes: Any) -> TrainingConfig:
    """Return the recipe of the recommended preset: pictures changed as on the web, half a cosine, averaged weights."""
    recipe = TrainingConfig(
        epochs=14,
        batch_size=16,
        optimizer="adamw",
        learning_rate=5e-4,
        weight_decay=0.02,
        schedule="cosine",
        warmup=0.05,
        ema_decay=0.99,
        balance=0.8,
        flip=True,
        augmentation=AugmentationConfig.lived(compress=0.5, rescale=0.3, crop=0.35, blur=0.05, noise=0.05),
        precision="auto",
        keep="last",
        objective={"label_smoothing": 0.1, "metric_loss": "none"},
    )
    return recipe.with_changes(changes)
