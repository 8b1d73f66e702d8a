"""ResNet-18 from scratch: the baseline that a score of BMRL is read beside."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from bmrl.errors import MissingExtraError
from bmrl.training.recipes import TrainingConfig
from bmrl.training.task import AttributionTask

__all__ = ["ResNetTask", "resnet18_recipe"]


def resnet18_recipe(**changes: Any) -> TrainingConfig:
    """Return the baseline's recipe: Adam at 3e-4 and mirrored images."""
    settings: dict[str, Any] = {
        "epochs": 12,
        "learning_rate": 3e-4,
        "weight_decay": 0.0,
        "flip": True,
        "precision": "bf16-mixed",
        "keep": "last",
    }
    return TrainingConfig(**(settings | changes))


class ResNetTask(AttributionTask):
    """torchvision's ResNet-18 (He et al., 2016) with random weights, trained by cross-entropy.

    Args:
        num_generators: classes.
        recipe: the training recipe.
    """

    def __init__(self, num_generators: int, recipe: TrainingConfig) -> None:
        super().__init__(recipe)
        try:
            from torchvision.models import resnet18
        except ImportError as error:
            raise MissingExtraError("torchvision", "train") from error
        self.model: nn.Module = resnet18(num_classes=num_generators)

    def attribute(self, images: Tensor) -> Tensor:
        """See :meth:`AttributionTask.attribute`."""
        logits: Tensor = self.model(images.float() / 255)
        return logits

    def objective_step(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """See :meth:`AttributionTask.objective_step`."""
        logits = self.attribute(batch["image"])
        loss = F.cross_entropy(logits.float(), batch["label"])
        return loss, {"dfa": loss}, logits

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All parameters alike."""
        return [{"params": list(self.model.parameters())}]
