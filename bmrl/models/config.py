"""The configuration of a BMRL model: plain data, checked when it is made, saved as ``config.json``."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from bmrl._checks import described
from bmrl._fields import Bounds, Count, Positive, Share, check_fields, names_of, unknown_name
from bmrl.errors import ConfigError
from bmrl.generators import Generator

__all__ = ["BMRLConfig"]

Threshold = Annotated[float, Bounds(above=0, below=1)]
Depth = Annotated[int, Bounds(least=1, most=1000)]
"""Of layers that follow one another: more of them is a slip, and takes minutes to build."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BMRLConfig:
    """Everything that decides a model's architecture. Defaults are the paper's (section 4.1).

    Args:
        generators: the classes, in the order of the logits.
        image_size: height and width of the input in pixels; a multiple of 2 per backbone stage.
        patch_size: side p of the patch that the noise view shows; None means half of ``image_size``.
        embed_dim: width d of every embedding.
        channels: channels of the convolutional backbone, one a stage; each stage halves height and width.
        convs_per_stage: 3 x 3 convolutions a stage.
        visual_blocks: transformer blocks in each of the three visual encoders.
        parsing_blocks: transformer blocks Q of the parsing encoder.
        language_blocks: transformer blocks L of the language encoder.
        num_heads: attention heads; divides ``embed_dim``.
        mlp_dim: hidden width of each block's MLP.
        dropout: probability of dropping a unit in the blocks and before the MLP head; 0 in the paper.
        token_patch: ``"all"`` makes one token of the whole feature map (the paper), ``1`` one token a position.
        fusion: ``"sum"`` adds the three class tokens (the paper), ``"cross_attention"`` lets the appearance
            token query all three.
        appearance: the appearance encoder (AE) is on.
        edge: the edge encoder (EE) is on.
        noise: the noise encoder (NE) is on.
        noise_truncation: > 0; residuals of the noise view are clamped to ± this. Images lie in [0, 1], so that the
            paper's 3 clamps nothing; a few gray levels, such as 10 / 255, keep faint traces and cut strong edges.
        parsing: the parsing encoder (PE) is on in training.
        language: the language encoder (LE) and the predictor of its embedding are on in training.
        readout: which level's end-of-text token is the language embedding: ``"last_level"``, or
            ``"first_level"``, which makes the other prompts ineffective under the causal mask.
        vocab_size: word tokens known to the language encoder (49,408 in CLIP's vocabulary).
        context_length: tokens a prompt.
        num_levels: prompts a generator.
        normalize_embedding: the heads act on the L2-normalized embedding.
        head_norm: a layer norm stands before the MLP head.
        thresholds: maximum probabilities below which an image is called unseen.

    Raises:
        ConfigError: a value of another type or out of its range, or values that do not fit together; the message
            names the field.
        RangeError: a value is none of the choices above.

    The switches give the rows of Tables 6 and 8: ``edge=noise=parsing=language=False`` is CViT,
    ``edge=parsing=False`` is MFCLIP.
    """

    generators: tuple[Generator, ...]
    image_size: Count = 224
    patch_size: Count | None = None
    embed_dim: Count = 512
    channels: tuple[Count, ...] = (32, 64, 128, 256, 512)
    convs_per_stage: tuple[Depth, ...] = (3, 3, 3, 4, 4)
    visual_blocks: Depth = 6
    parsing_blocks: Depth = 6
    language_blocks: Depth = 6
    num_heads: Count = 8
    mlp_dim: Count = 1024
    dropout: Share = 0.0
    token_patch: Literal["all", 1] = "all"
    fusion: Literal["sum", "cross_attention"] = "sum"
    appearance: bool = True
    edge: bool = True
    noise: bool = True
    noise_truncation: Positive = 3.0
    parsing: bool = True
    language: bool = True
    readout: Literal["last_level", "first_level"] = "last_level"
    vocab_size: Count = 49408
    context_length: Count = 77
    num_levels: Depth = 4
    normalize_embedding: bool = True
    head_norm: bool = True
    thresholds: tuple[Threshold, ...] = (0.7, 0.9)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.patch_size is None:
            object.__setattr__(self, "patch_size", self.image_size // 2)
        self._check_generators()
        self._check_sizes()
        if not (self.appearance or self.edge or self.noise):
            raise ConfigError("appearance, edge, noise: expected at least one visual encoder on, got none")
        if self.fusion == "cross_attention" and not self.appearance:
            raise ConfigError("appearance: expected True with fusion 'cross_attention' (it is the query), got False")
        if not self.thresholds:
            raise ConfigError("thresholds: expected at least one, got none")

    def _check_generators(self) -> None:
        if not self.generators:
            raise ConfigError("generators: expected at least one, got none")
        counts = Counter(generator.name for generator in self.generators)
        repeated = sorted(name for name, count in counts.items() if count > 1)
        if repeated:
            raise ConfigError(f"generators: expected distinct names, got {', '.join(repeated)} more than once")

    def _check_sizes(self) -> None:
        if len(self.channels) != len(self.convs_per_stage) or not self.channels:
            raise ConfigError(
                f"convs_per_stage: expected one entry a stage of channels {self.channels}, got {self.convs_per_stage}"
            )
        if self.embed_dim % self.num_heads:
            raise ConfigError(f"num_heads: expected a divisor of embed_dim {self.embed_dim}, got {self.num_heads}")
        stride = 2 ** len(self.channels)
        if self.image_size % stride:
            raise ConfigError(f"image_size: expected a multiple of {stride}, got {self.image_size}")
        patch = self.patch_size
        assert patch is not None
        if patch % (stride // 2) or not 2 <= patch <= self.image_size:
            raise ConfigError(
                f"patch_size: expected a multiple of {stride // 2} up to image_size {self.image_size}, got {patch}"
            )

    @property
    def num_generators(self) -> int:
        """The number of classes x."""
        return len(self.generators)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON can hold; the inverse of :meth:`from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> BMRLConfig:
        """Make a configuration from plain data.

        Raises:
            ConfigError: a key is unknown or missing, or a value does not fit.
        """
        if not isinstance(data, dict):
            raise ConfigError(f"model: expected fields by name, got {described(data)}")
        known = names_of(cls)
        for name in data:
            if name not in known[cls.__name__]:
                raise unknown_name(name, known)
        generators = data.get("generators")
        if not isinstance(generators, list | tuple):
            raise ConfigError(f"generators: expected a list, got {described(generators)}")
        made = []
        for index, entry in enumerate(generators):
            if not isinstance(entry, dict) or set(entry) != {"name", "manipulation", "architecture"}:
                found = ", ".join(map(repr, entry))[:200] if isinstance(entry, dict) else described(entry)
                raise ConfigError(f"generators[{index}]: expected name, manipulation and architecture, got {found}")
            made.append(Generator(**entry))
        return cls(**(data | {"generators": tuple(made)}))
