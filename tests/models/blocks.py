"""Blocks that are not of the library, one for each place of a model; 32 px, embeddings of 16."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bmrl.models import View


class Pooled(nn.Module):
    """Any image to an embedding, with a batch norm, dropout and an activation that its tensors do not show."""

    def __init__(self, channels: int = 3, embed_dim: int = 16, activation: type[nn.Module] = nn.GELU) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(channels * 16, 24), activation(), nn.Dropout(0.5)
        )
        self.last = nn.Linear(24, embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        embeddings: Tensor = self.last(self.layers(self.norm(images)))
        return embeddings


class Parsing(nn.Module):
    """A histogram of classes to an embedding."""

    def __init__(self, embed_dim: int = 16) -> None:
        super().__init__()
        self.layer = nn.Linear(19, embed_dim)

    def forward(self, parsing: Tensor) -> Tensor:
        shares = nn.functional.one_hot(parsing.long(), 19).to(self.layer.weight.dtype).mean(dim=(1, 2))
        embeddings: Tensor = self.layer(shares)
        return embeddings


class Language(nn.Module):
    """A bag of words."""

    def __init__(self, words: int = 50, embed_dim: int = 16) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(words, embed_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        embeddings: Tensor = self.words(tokens.flatten(1))
        return embeddings


class Cosine(nn.Module):
    """A cosine transform of the brightness, without tensors of its own in the state dict."""

    basis: Tensor

    def __init__(self, size: int = 32) -> None:
        super().__init__()
        angles = torch.arange(size)[:, None] * (torch.arange(size) + 0.5) * torch.pi / size
        self.register_buffer("basis", angles.cos(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        gray = images.mean(dim=1, keepdim=True)
        return (self.basis @ gray @ self.basis.T).abs().add(1).log()


def cosine_view() -> View:
    """A fourth view."""
    return View(Cosine(), Pooled(1))


def every_block() -> dict[str, object]:
    """A block for every place, and a fourth view."""
    return {
        "appearance": Pooled(),
        "edge": Pooled(1),
        "noise": Pooled(),
        "statistics": nn.Sequential(nn.BatchNorm1d(465), nn.Linear(465, 16)),
        "parsing": Parsing(),
        "language": Language(),
        "head": nn.Linear(16, 3),
        "views": {"cosine": cosine_view()},
    }
