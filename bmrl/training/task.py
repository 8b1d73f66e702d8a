"""The training task: what one step of training and one of validation compute."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrl.data.prompts import prompt_tokens
from bmrl.errors import ConfigError
from bmrl.losses import BMRLObjective
from bmrl.training.augmentation import flip, shift

if TYPE_CHECKING:
    from bmrl.models import BMRL, BMRLConfig, BMRLOutput
    from bmrl.training.recipes import TrainingConfig

__all__ = ["AttributionTask", "BMRLTask"]


class AttributionTask(L.LightningModule):
    """What every attributor's training shares: augmentation, optimiser, validation and log.

    Args:
        model: takes uint8 images and returns a :class:`~bmrl.models.BMRLOutput`.
        recipe: the training recipe.

    A subclass gives :meth:`objective_step`, and :meth:`parameter_groups` if it has more than the model. Randomness of
    a step depends on the seed, the epoch and the step alone, so that a resumed run repeats an uninterrupted one.
    """

    model: nn.Module

    def __init__(self, model: nn.Module, recipe: TrainingConfig) -> None:
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)
        self.recipe = recipe
        self._rng = torch.Generator()

    @abstractmethod
    def objective_step(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Return the total loss, its named parts and the logits of an augmented batch."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the optimiser's parameter groups."""
        return [{"params": list(self.model.parameters())}]

    def configure_optimizers(self) -> Any:
        """Adam or AdamW, and a tenfold drop every ``drop_every`` epochs."""
        optimizers = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        optimizer = optimizers[self.recipe.optimizer](
            self.parameter_groups(), lr=self.recipe.learning_rate, weight_decay=self.recipe.weight_decay, fused=True
        )
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, self.recipe.drop_every)]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Start the step's randomness: augmentation here, dropout in PyTorch's global state."""
        # Not once an epoch: Lightning leaves that hook out for the first epoch after a resume.
        seed = ((self.recipe.seed * 1_000_003 + self.current_epoch) * 1_000_003 + batch_idx) % 2**63
        self._rng.manual_seed(seed)
        torch.manual_seed(seed)

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        """One step; logs the total, each part and the accuracy on the batch."""
        images, parsing = batch["image"], batch["parsing"]
        if self.recipe.flip:
            images, parsing = flip(images, parsing, rng=self._rng)
        if self.recipe.shift:
            images, parsing = shift(images, parsing, pixels=self.recipe.shift, rng=self._rng)
        total, parts, logits = self.objective_step(batch | {"image": images, "parsing": parsing})
        size = len(images)
        accuracy = (logits.argmax(dim=-1) == batch["label"]).float().mean()
        self.log("train_loss", total, on_step=False, on_epoch=True, batch_size=size)
        self.log("train_accuracy", accuracy, on_step=False, on_epoch=True, prog_bar=True, batch_size=size)
        for name, part in parts.items():
            self.log(f"train_{name}", part, on_step=False, on_epoch=True, batch_size=size)
        return total

    def validation_step(self, batch: dict[str, Tensor]) -> None:
        """Log cross-entropy and accuracy on seen validation images."""
        logits = self.model(batch["image"]).logits.float()
        labels, size = batch["label"], len(batch["label"])
        accuracy = (logits.argmax(dim=-1) == labels).float().mean()
        self.log("val_loss", F.cross_entropy(logits, labels), batch_size=size)
        self.log("val_accuracy", accuracy, prog_bar=True, batch_size=size)


class BMRLTask(AttributionTask):
    """BMRL with the objective of eq. 12.

    Args:
        model: built for the data's generators.
        recipe: the training recipe.
    """

    model: BMRL
    tokens: Tensor

    def __init__(self, model: BMRL, recipe: TrainingConfig) -> None:
        super().__init__(model, recipe)
        self.objective = BMRLObjective(model.config, **recipe.objective)
        if model.config.language:
            tokens = prompt_tokens(model.config.generators)
            _check_language(model.config, tokens)
            self.register_buffer("tokens", tokens, persistent=False)

    def objective_step(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """See :meth:`AttributionTask.objective_step`."""
        labels, mask = batch["label"], batch["has_parsing"]
        output: BMRLOutput = self.model(batch["image"])
        if self.model.parsing_encoder is not None and mask.any():
            # Images without a map stay out of the encoder, whose batch norm would mix them into the others.
            encoded = self.model.parsing_encoder(batch["parsing"][mask])
            parsing = encoded.new_zeros(len(mask), encoded.shape[-1])
            output = output._replace(parsing=parsing.masked_scatter(mask[:, None], encoded))
        if self.model.language_encoder is not None:
            # All images of a generator share their prompts: encode each generator once.
            output = output._replace(language=self.model.language_encoder(self.tokens)[labels])
        result = self.objective(output._replace(parsing_mask=mask), labels)
        return result.total, result.parts, output.logits

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The model; and the objective, faster and without weight decay."""
        groups = super().parameter_groups()
        own = list(self.objective.parameters())
        if own:
            rate = self.recipe.learning_rate * self.recipe.objective_learning_rate_scale
            groups.append({"params": own, "lr": rate, "weight_decay": 0.0})
        return groups


def _check_language(config: BMRLConfig, tokens: Tensor) -> None:
    """Check that the language encoder takes the prompts."""
    _, levels, length = tokens.shape
    for field, expected in (("num_levels", levels), ("context_length", length)):
        if getattr(config, field) != expected:
            raise ConfigError(f"{field}: expected {expected}, as the prompts have it, got {getattr(config, field)}")
    if config.vocab_size <= int(tokens.max()):
        raise ConfigError(
            f"vocab_size: expected more than the largest token {int(tokens.max())}, got {config.vocab_size}"
        )
