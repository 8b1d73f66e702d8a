"""The training task: what one step of training and one of validation compute."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrl._checks import check_positive
from bmrl.data.prompts import prompt_tokens
from bmrl.errors import ConfigError, DivergenceError, RangeError
from bmrl.losses import BMRLObjective
from bmrl.models.layout import to_channels_last
from bmrl.training.augmentation import flip, shift

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bmrl.encoders.config import CustomLanguageConfig, LanguageConfig
    from bmrl.models import BMRL, BMRLOutput
    from bmrl.training.recipes import TrainingConfig

__all__ = ["AttributionTask", "BMRLTask", "rate_share"]


class AttributionTask(L.LightningModule):
    """What every attributor's training shares: augmentation, optimizer, validation and log.

    Args:
        model: takes uint8 images and returns a :class:`~bmrl.models.BMRLOutput`; its ``config`` says how it is built.
        recipe: the training recipe.

    Raises:
        ConfigError: the recipe moves images further than their size.

    A subclass gives :meth:`objective_step`, and :meth:`parameter_groups` if it has more than the model. Randomness of
    a step depends only on the seed, the epoch and the step, so that a resumed run repeats an uninterrupted one.

    Training ends with a :class:`~bmrl.errors.DivergenceError` at the first loss or gradient that is not finite, before
    it reaches the weights, and at the end of the first epoch whose weights or answers are not, before it is kept.
    """

    model: nn.Module

    def __init__(self, model: nn.Module, recipe: TrainingConfig) -> None:
        super().__init__()
        self.model = to_channels_last(model)
        self.recipe = recipe
        config: Any = model.config
        if recipe.shift >= config.image_size:
            raise ConfigError(f"shift: expected less than image_size {config.image_size}, got {recipe.shift}")
        self._rng = torch.Generator()
        self._images: Tensor | None = None

    @abstractmethod
    def objective_step(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Return the total loss (a scalar), its named parts (scalars) and the logits ``(batch, num_generators)``.

        Args:
            batch: augmented: ``image`` ``(batch, 3, s, s)`` uint8, ``label`` ``(batch,)`` int64, ``parsing``
                ``(batch, s, s)`` uint8 class indices, ``has_parsing`` ``(batch,)`` bool.
        """

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the optimizer's parameter groups, one per learning rate.

        A module with an attribute ``learning_rate_scale``, such as the tower of a
        :class:`~bmrl.encoders.PretrainedEncoder`, trains at the recipe's learning rate times this; of nested ones, the
        innermost counts. Parameters that need no gradient are in no group.
        """
        groups: dict[float, list[nn.Parameter]] = {}
        for scale, parameter in _scaled_parameters(self.model):
            groups.setdefault(scale, []).append(parameter)
        rate = self.recipe.learning_rate
        return [{"params": each} | ({} if scale == 1 else {"lr": rate * scale}) for scale, each in groups.items()]

    def settings(self) -> dict[str, Any]:
        """Return, as plain data, what decides a training: the model's configuration and the recipe."""
        config: Any = self.model.config
        return {"model": config.to_dict(), "recipe": self.recipe.to_dict()}

    def configure_optimizers(self) -> Any:
        """Adam or AdamW, and the schedule of the recipe, which is asked at each step."""
        optimizers = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        optimizer = optimizers[self.recipe.optimizer](
            self.parameter_groups(), lr=self.recipe.learning_rate, weight_decay=self.recipe.weight_decay, fused=True
        )
        # A checkpoint is compared with an optimizer that trains nothing.
        steps = 1 if self._trainer is None else int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_share(self.recipe, step, steps))
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Start the step's randomness: augmentation here, dropout in PyTorch's global state."""
        # Not once per epoch: Lightning leaves that hook out for the first epoch after a resume.
        seed = ((self.recipe.seed * 1_000_003 + self.current_epoch) * 1_000_003 + batch_idx) % 2**63
        self._rng.manual_seed(seed)
        torch.manual_seed(seed)

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        """One step; logs the total, each part and the accuracy on the batch."""
        images, parsing = batch["image"], batch["parsing"]
        self._images = images
        if self.recipe.flip:
            images, parsing = flip(images, parsing, rng=self._rng)
        if self.recipe.shift:
            images, parsing = shift(images, parsing, pixels=self.recipe.shift, rng=self._rng)
        try:
            total, parts, logits = self.objective_step(batch | {"image": images, "parsing": parsing})
        except RangeError as error:  # what the objective is given was checked, unless the weights brought it
            if self.global_step == 0:
                raise
            raise DivergenceError(self._diverged(f"this ({error})")) from error
        self._check_finite("a loss", [total])
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
        self._check_finite("an answer to a validation image", [logits])
        labels, size = batch["label"], len(batch["label"])
        accuracy = (logits.argmax(dim=-1) == labels).float().mean()
        self.log("val_loss", F.cross_entropy(logits, labels), batch_size=size)
        self.log("val_accuracy", accuracy, prog_bar=True, batch_size=size)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Check the gradients before they change the weights."""
        self._check_finite("a gradient", [p.grad for p in self.parameters() if p.grad is not None])

    def on_train_epoch_end(self) -> None:
        """Check what the epoch arrived at, before it becomes a checkpoint."""
        self.check_answers(self._images)

    def check_answers(self, images: Tensor | None) -> None:
        """Check that the weights, and the answers in evaluation mode, are finite.

        Args:
            images: uint8 images to ask for, on the model's device; None asks for none.

        Raises:
            DivergenceError: they are not.
        """
        self._check_finite("a weight", [tensor for tensor in self.state_dict().values() if tensor.is_floating_point()])
        if images is None:
            return
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        with torch.no_grad():
            self._check_finite("an answer to a training image", [self.model(images).logits])
        for module, mode in modes:
            module.training = mode

    def _check_finite(self, what: str, tensors: Iterable[Tensor]) -> None:
        # The largest magnitude, not the norm: squares may overflow where nothing is wrong.
        largest = [torch.linalg.vector_norm(tensor.detach(), math.inf) for tensor in tensors if tensor.numel()]
        if largest and not (worst := torch.stack(largest).max()).isfinite():
            raise DivergenceError(self._diverged(f"{what} of {worst.item()}"))

    def _diverged(self, what: str) -> str:
        where, rate = "", self.recipe.learning_rate
        if self._trainer is not None and self.trainer.optimizers:
            progress = self.trainer.fit_loop.epoch_loop.batch_progress.current
            rate = self.trainer.optimizers[0].param_groups[0]["lr"]
            epoch, epochs = min(self.current_epoch + 1, self.recipe.epochs), self.recipe.epochs
            step, steps = progress.ready, self.trainer.num_training_batches
            where = f" in epoch {epoch} of {epochs}, step {step} of {steps},"
        return (
            f"learning_rate: expected a training that stays finite, got {what}{where} at a rate of {rate:g}; start a "
            "new run with a lower one"
        )


def rate_share(recipe: TrainingConfig, step: int, steps: int) -> float:
    """Return which share of its learning rate a recipe trains at.

    Args:
        recipe: whose ``schedule``, ``warmup`` and ``drop_every`` it is.
        step: from 0.
        steps: of the whole training.
    """
    rising = round(recipe.warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    if recipe.schedule == "cosine":
        return 0.5 + 0.5 * math.cos(math.pi * (step - rising) / max(steps - rising, 1))
    epoch = step * recipe.epochs // max(steps, 1)
    return float(0.1 ** (epoch // recipe.drop_every))


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
        if model.config.language is not None:
            with torch.device("cpu"):  # a constant, which no caller's default device and no average may change
                self.tokens = prompt_tokens(model.config.generators)
            _check_language(model.config.language, self.tokens)

    def objective_step(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """See :meth:`AttributionTask.objective_step`."""
        labels, mask = batch["label"], batch["has_parsing"]
        output: BMRLOutput = self.model(batch["image"])
        if self.model.parsing_encoder is not None:
            parsing = _encode_maps(self.model.parsing_encoder, batch["parsing"], mask, self.model.config.embed_dim)
            output = output._replace(parsing=parsing)
        if self.model.language_encoder is not None:
            # All images of a generator share their prompts: encode each generator once.
            output = output._replace(language=self.model.language_encoder(self.tokens.to(labels.device))[labels])
        if self.global_step:  # the objective would name one of its arguments
            self._check_finite("an answer to a training image", [output.logits, output.embedding])
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


def _scaled_parameters(model: nn.Module) -> Iterator[tuple[float, nn.Parameter]]:
    """Yield each parameter that needs gradients, and what its learning rate is multiplied by, in the model's order."""
    scales: dict[str, float] = {}
    owners = dict(model.named_modules(remove_duplicate=False))
    for name, module in owners.items():  # a module comes after the one that holds it
        outer = scales[name.rpartition(".")[0]] if name else 1.0
        scales[name] = getattr(module, "learning_rate_scale", outer)
        check_positive(f"{name}.learning_rate_scale", scales[name])
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield scales[name.rpartition(".")[0]], parameter


def _encode_maps(encoder: nn.Module, maps: Tensor, mask: Tensor, embed_dim: int) -> Tensor:
    """Return the embeddings ``(batch, embed_dim)`` of the maps in ``mask``, zeros elsewhere."""
    if not mask.any():
        # Zeros that hang on every parameter: distributed training waits for the gradients of all of them.
        zero = sum((parameter.sum() * 0 for parameter in encoder.parameters()), torch.zeros((), device=mask.device))
        return zero.expand(len(mask), embed_dim)
    # Images without a map stay out of the encoder, whose batch norm would mix them into the others.
    encoded: Tensor = encoder(maps[mask])
    return encoded.new_zeros(len(mask), encoded.shape[-1]).masked_scatter(mask[:, None], encoded)


def _check_language(config: LanguageConfig | CustomLanguageConfig, tokens: Tensor) -> None:
    """Check that the language encoder takes the prompts."""
    _, levels, length = tokens.shape
    for field, expected in (("num_levels", levels), ("context_length", length)):
        got = getattr(config, field)
        if got != expected:
            raise ConfigError(f"language.{field}: expected {expected}, as the prompts have it, got {got}")
    if config.vocab_size <= int(tokens.max()):
        raise ConfigError(
            f"language.vocab_size: expected more than the largest token {int(tokens.max())}, got {config.vocab_size}"
        )
