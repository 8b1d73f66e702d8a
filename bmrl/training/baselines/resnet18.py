"""ResNet-18 from scratch: the baseline that BMRL is compared with."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from bmrl.errors import MissingExtraError
from bmrl.models import BMRLConfig, BMRLOutput
from bmrl.training.recipes import TrainingConfig
from bmrl.training.task import AttributionTask

__all__ = ["ResNet18", "ResNet18Task", "resnet18_recipe"]


def resnet18_recipe(**changes: Any) -> TrainingConfig:
    """Return the baseline's recipe: Adam at 3e-4 and mirrored images."""
    settings: dict[str, Any] = {
        "epochs": 12,
        "learning_rate": 3e-4,
        "weight_decay": 0.0,
        "flip": True,
        "precision": "auto",
        "keep": "last",
    }
    return TrainingConfig(**(settings | changes))


class ResNet18(nn.Module):
    """torchvision's ResNet-18 (He et al., 2016) with random weights, in the place of a BMRL model.

    Args:
        config: of the BMRL model that it is compared with; its classes and image size count.

    Raises:
        MissingExtraError: torchvision is not installed.
    """

    def __init__(self, config: BMRLConfig) -> None:
        super().__init__()
        try:
            from torchvision.models import resnet18
        except ImportError as error:
            raise MissingExtraError("torchvision", "train") from error
        self.config = config
        self.network: nn.Module = resnet18(num_classes=config.num_generators)
        self.head: nn.Module = self.network.fc
        self.network.fc = nn.Identity()

    def forward(self, images: Tensor) -> BMRLOutput:
        """Return logits, probabilities and the features before the last layer, ``(batch, 512)``.

        Args:
            images: ``(batch, 3, image_size, image_size)`` uint8.
        """
        features = self.network(images.float() / 255)
        logits = self.head(features)
        return BMRLOutput(logits=logits, probabilities=logits.softmax(dim=-1), embedding=features)


class ResNet18Task(AttributionTask):
    """Training of :class:`ResNet18` by cross-entropy."""

    def objective_step(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """See :meth:`AttributionTask.objective_step`."""
        logits = self.model(batch["image"]).logits
        loss = F.cross_entropy(logits.float(), batch["label"])
        return loss, {"dfa": loss}, logits
