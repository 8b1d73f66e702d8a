"""The configuration of a BMRL model: plain data, checked when it is made, saved as ``config.json``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from bmrl._checks import check_choice
from bmrl.errors import ConfigError

__all__ = ["Architecture", "BMRLConfig", "Generator", "Manipulation"]

Manipulation = Literal["none", "EFS", "FS", "AM"]
Architecture = Literal["none", "GAN", "diffusion"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Generator:
    """One class: a generator of faces, or a source of photographs.

    Args:
        name: what the class is called in every table.
        manipulation: ``"EFS"`` entire face synthesis, ``"FS"`` face swap, ``"AM"`` attribute manipulation;
            ``"none"`` for photographs.
        architecture: ``"GAN"`` or ``"diffusion"``; ``"none"`` for photographs.

    Raises:
        RangeError: a family is not in the lists above.
        ConfigError: the name is empty, or only one of the two families is ``"none"``.
    """

    name: str
    manipulation: Manipulation
    architecture: Architecture

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise ConfigError(f"name: expected a non-empty string, got {self.name!r}")
        check_choice("manipulation", self.manipulation, get_args(Manipulation))
        check_choice("architecture", self.architecture, get_args(Architecture))
        if (self.manipulation == "none") != (self.architecture == "none"):
            raise ConfigError(
                f"architecture: expected 'none' exactly when manipulation is 'none' (a photograph), got "
                f"manipulation {self.manipulation!r} with architecture {self.architecture!r} for {self.name!r}"
            )

    @property
    def is_real(self) -> bool:
        """Whether the class holds photographs."""
        return self.manipulation == "none"


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
            paper's 3 clamps nothing; a few grey levels, such as 10 / 255, keep faint traces and cut strong edges.
        parsing: the parsing encoder (PE) is on in training.
        language: the language encoder (LE) and the predictor of its embedding are on in training.
        readout: which level's end-of-text token is the language embedding: ``"last_level"``, or
            ``"first_level"``, which makes the other prompts ineffective under the causal mask.
        vocab_size: word tokens known to the language encoder (49,408 in CLIP's vocabulary).
        context_length: tokens a prompt.
        num_levels: prompts a generator.
        normalize_embedding: the heads act on the L2-normalised embedding.
        head_norm: a layer norm stands before the MLP head.
        thresholds: maximum probabilities below which an image is called unseen.

    Raises:
        ConfigError: values that do not fit together; the message names the field.

    The switches give the rows of Tables 6 and 8: ``edge=noise=parsing=language=False`` is CViT,
    ``edge=parsing=False`` is MFCLIP.
    """

    generators: tuple[Generator, ...]
    image_size: int = 224
    patch_size: int | None = None
    embed_dim: int = 512
    channels: tuple[int, ...] = (32, 64, 128, 256, 512)
    convs_per_stage: tuple[int, ...] = (3, 3, 3, 4, 4)
    visual_blocks: int = 6
    parsing_blocks: int = 6
    language_blocks: int = 6
    num_heads: int = 8
    mlp_dim: int = 1024
    dropout: float = 0.0
    token_patch: Literal["all", 1] = "all"
    fusion: Literal["sum", "cross_attention"] = "sum"
    appearance: bool = True
    edge: bool = True
    noise: bool = True
    noise_truncation: float = 3.0
    parsing: bool = True
    language: bool = True
    readout: Literal["last_level", "first_level"] = "last_level"
    vocab_size: int = 49408
    context_length: int = 77
    num_levels: int = 4
    normalize_embedding: bool = True
    head_norm: bool = True
    thresholds: tuple[float, ...] = (0.7, 0.9)

    def __post_init__(self) -> None:
        for field in ("generators", "channels", "convs_per_stage", "thresholds"):
            if not isinstance(getattr(self, field), list | tuple):
                raise ConfigError(f"{field}: expected a list, got {getattr(self, field)!r}")
            object.__setattr__(self, field, tuple(getattr(self, field)))
        if self.patch_size is None and isinstance(self.image_size, int):
            object.__setattr__(self, "patch_size", self.image_size // 2)
        self._check_switches()
        self._check_generators()
        self._check_sizes()
        check_choice("token_patch", self.token_patch, ("all", 1))
        check_choice("fusion", self.fusion, ("sum", "cross_attention"))
        check_choice("readout", self.readout, ("last_level", "first_level"))
        if not (self.appearance or self.edge or self.noise):
            raise ConfigError("appearance, edge, noise: expected at least one visual encoder on, got none")
        if self.fusion == "cross_attention" and not self.appearance:
            raise ConfigError("appearance: expected True with fusion 'cross_attention' (it is the query), got False")
        if not self.thresholds or not all(0 < threshold < 1 for threshold in self.thresholds):
            raise ConfigError(f"thresholds: expected one or more numbers between 0 and 1, got {self.thresholds}")

    def _check_generators(self) -> None:
        if not self.generators:
            raise ConfigError("generators: expected at least one, got none")
        if not all(isinstance(generator, Generator) for generator in self.generators):
            raise ConfigError(f"generators: expected bmrl.models.Generator objects, got {self.generators!r}")
        names = [generator.name for generator in self.generators]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ConfigError(f"generators: expected distinct names, got {', '.join(repeated)} more than once")

    def _check_switches(self) -> None:
        switches = ("appearance", "edge", "noise", "parsing", "language", "normalize_embedding", "head_norm")
        for field in switches:
            value = getattr(self, field)
            if not isinstance(value, bool):  # any other value, such as "False", would count as on
                raise ConfigError(f"{field}: expected true or false, got {value!r}")

    def _check_sizes(self) -> None:
        counts = ("embed_dim", "num_heads", "mlp_dim", "visual_blocks", "parsing_blocks", "language_blocks")
        for field in (*counts, "image_size", "vocab_size", "context_length", "num_levels"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{field}: expected an integer >= 1, got {value!r}")
        for field in ("channels", "convs_per_stage"):
            if not all(isinstance(entry, int) and entry >= 1 for entry in getattr(self, field)):
                raise ConfigError(f"{field}: expected integers >= 1, got {getattr(self, field)}")
        if len(self.channels) != len(self.convs_per_stage) or not self.channels:
            raise ConfigError(
                f"convs_per_stage: expected one entry a stage of channels {self.channels}, got {self.convs_per_stage}"
            )
        if self.embed_dim % self.num_heads:
            raise ConfigError(f"num_heads: expected a divisor of embed_dim {self.embed_dim}, got {self.num_heads}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout: expected 0 <= dropout < 1, got {self.dropout}")
        if not self.noise_truncation > 0:
            raise ConfigError(f"noise_truncation: expected > 0, got {self.noise_truncation}")
        stride = 2 ** len(self.channels)
        if self.image_size % stride:
            raise ConfigError(f"image_size: expected a multiple of {stride}, got {self.image_size}")
        patch = self.patch_size
        if not isinstance(patch, int) or patch % (stride // 2) or not 2 <= patch <= self.image_size:
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
        data = dict(data)
        generators = data.pop("generators", None)
        if not isinstance(generators, list | tuple):
            raise ConfigError(f"generators: expected a list, got {generators!r}")
        made = []
        for entry in generators:
            if not isinstance(entry, dict) or set(entry) != {"name", "manipulation", "architecture"}:
                raise ConfigError(f"generators: expected entries with name, manipulation, architecture, got {entry!r}")
            made.append(Generator(**entry))
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise ConfigError(f"{unknown[0]}: expected one of {', '.join(sorted(known))}, got an unknown key")
        return cls(generators=tuple(made), **data)
