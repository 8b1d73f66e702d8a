"""The language encoder, and CLIP's tokens that it reads."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from bmrl._checks import check_dtype, check_integer, check_shape
from bmrl._values import check_choice
from bmrl.encoders.transformer import TransformerBlock
from bmrl.errors import DTypeError, MissingExtraError, RangeError

__all__ = ["LanguageEncoder", "tokenize"]


@functools.cache
def _tokenizer() -> Any:
    try:
        from open_clip.tokenizer import SimpleTokenizer
    except ImportError as error:
        raise MissingExtraError("open_clip_torch", "train") from error
    return SimpleTokenizer()


def tokenize(texts: Sequence[str], *, context_length: int = 77) -> Tensor:
    """Return the byte-pair tokens of CLIP's vocabulary.

    Args:
        texts: one prompt per row.
        context_length: tokens per row, at least 2. Longer texts are cut, keeping the end-of-text token.

    Returns:
        ``(len(texts), context_length)`` int64: start-of-text 49406, words, end-of-text 49407, then 0.

    Raises:
        MissingExtraError: open_clip_torch is not installed.
        RangeError: ``texts`` is one string, not a sequence of them, or ``context_length`` is below 2.
        DTypeError: ``texts`` holds something else, or ``context_length`` is not an integer.
    """
    if isinstance(texts, str):
        raise RangeError(f"texts: expected a sequence of strings, got the string {texts!r}")
    if not isinstance(texts, Sequence):
        raise DTypeError(f"texts: expected a sequence of strings, got {type(texts).__name__}")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise DTypeError(f"texts[{index}]: expected a string, got {type(text).__name__}")
    check_integer("context_length", context_length, least=2)
    if not texts:
        return torch.zeros(0, context_length, dtype=torch.int64)
    tokens: Tensor = _tokenizer()(list(texts), context_length=context_length)
    return tokens


class LanguageEncoder(nn.Module):
    """The language encoder LE: a causal transformer over the prompts of all levels in a row.

    Args:
        embed_dim: width d of the embedding.
        vocab_size: number of word tokens.
        context_length: tokens per prompt.
        num_levels: prompts per sample; they follow one another, t = num_levels * context_length (308 in the paper).
        num_blocks: transformer blocks L.
        num_heads: attention heads, a divisor of ``embed_dim``.
        mlp_dim: hidden width of each block's MLP.
        dropout: probability of dropping a unit in each block.
        readout: which level's end-of-text token is the embedding. ``"last_level"`` has seen every prompt;
            ``"first_level"`` has seen only the first, because attention is causal.

    Raises:
        DTypeError, RangeError: an argument has another type or is out of its range.
        ConfigError: ``num_heads`` does not divide ``embed_dim``.

    Source: arXiv:2504.14129, section 3.5; trained from scratch, used in training only.
    """

    def __init__(
        self,
        embed_dim: int = 512,
        *,
        vocab_size: int = 49408,
        context_length: int = 77,
        num_levels: int = 4,
        num_blocks: int = 6,
        num_heads: int = 8,
        mlp_dim: int = 1024,
        dropout: float = 0.0,
        readout: Literal["last_level", "first_level"] = "last_level",
    ) -> None:
        super().__init__()
        sizes = {
            "embed_dim": embed_dim,
            "vocab_size": vocab_size,
            "context_length": context_length,
            "num_levels": num_levels,
            "num_blocks": num_blocks,
        }
        for name, size in sizes.items():
            check_integer(name, size, least=1)
        check_choice("readout", readout, ("last_level", "first_level"))
        self.vocab_size = vocab_size
        self.context_length = context_length
        self.num_levels = num_levels
        self.readout = readout
        self.word_embedding = nn.Embedding(vocab_size, embed_dim)
        self.position_embedding = nn.Parameter(torch.empty(num_levels * context_length, embed_dim))
        nn.init.normal_(self.word_embedding.weight, std=0.02)
        nn.init.normal_(self.position_embedding, std=0.01)
        self.blocks = nn.Sequential(
            *(
                TransformerBlock(embed_dim, num_heads=num_heads, mlp_dim=mlp_dim, causal=True, dropout=dropout)
                for _ in range(num_blocks)
            )
        )
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the language embedding T_l, not normalized.

        Args:
            tokens: ``(batch, num_levels, context_length)`` int64, each row of :func:`tokenize`; the end-of-text
                token is the row's largest id.

        Returns:
            ``(batch, embed_dim)``.

        Raises:
            ShapeError: another shape.
            DTypeError: not int64.
        """
        check_shape("tokens", tokens, "batch levels context", levels=self.num_levels, context=self.context_length)
        check_dtype("tokens", tokens, torch.int64)
        sequence = rearrange(tokens, "b l t -> b (l t)")
        encoded = self.norm(self.blocks(self.word_embedding(sequence) + self.position_embedding))
        level = self.num_levels - 1 if self.readout == "last_level" else 0
        end_of_text = level * self.context_length + tokens[:, level].argmax(dim=-1)
        return encoded.gather(1, end_of_text[:, None, None].expand(-1, 1, encoded.shape[-1]))[:, 0]
