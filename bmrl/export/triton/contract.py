"""What a server says about the model it serves: the contract between repository, server and client."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from bmrl._checks import check_integer, check_number
from bmrl._text import shown
from bmrl.errors import MissingExtraError, ServerError
from bmrl.generators import Generator
from bmrl.inference.limits import Limits

__all__ = [
    "EMBEDDING",
    "ENCODED_IMAGE",
    "ENSEMBLE_NAME",
    "IMAGES",
    "INDEX",
    "MODEL_NAME",
    "PROBABILITIES",
    "PROBABILITY",
    "SCORE",
    "SEEN",
    "VERDICT",
    "ServedModel",
    "import_tritonclient",
]

MODEL_NAME = "bmrl"
IMAGES = "images"
PROBABILITIES = "probabilities"
EMBEDDING = "embedding"
SCORE = "score"

ENSEMBLE_NAME = "bmrl_attribute"
ENCODED_IMAGE = "image"
INDEX = "index"
PROBABILITY = "probability"
SEEN = "seen"
VERDICT = "verdict"

DESCRIBED = ("generators", "image_size", "embed_dim", "thresholds", "limits")
"""The parameters of a configuration that describe the model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedModel:
    """All that a client needs to know; a server hands it out with the model's configuration.

    Args:
        generators: the classes, in the order of the probabilities.
        image_size: height and width of the input in pixels.
        embed_dim: width of the embedding.
        thresholds: maximum probabilities below which an image is called unseen by the paper's rule.
        limits: what an image must reach for a name to be said.
        max_batch_size: maximum number of images per request.
        tensors: how the server calls images, probabilities, embedding and score.
    """

    generators: tuple[Generator, ...]
    image_size: int
    embed_dim: int
    thresholds: tuple[float, ...]
    limits: Limits
    max_batch_size: int
    tensors: tuple[str, str, str, str] = (IMAGES, PROBABILITIES, EMBEDDING, SCORE)

    @classmethod
    def from_description(
        cls, description: dict[str, Any], max_batch_size: int, tensors: tuple[str, str, str, str]
    ) -> ServedModel:
        """Take what an entry of ``artifact.json`` says."""
        return cls(
            generators=tuple(Generator(**entry) for entry in description["generators"]),
            image_size=description["image_size"],
            embed_dim=description["embed_dim"],
            thresholds=tuple(description["thresholds"]),
            limits=Limits.from_dict(description["limits"]),
            max_batch_size=max_batch_size,
            tensors=tensors,
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names, in the order of the probabilities."""
        return tuple(generator.name for generator in self.generators)

    def to_parameters(self) -> dict[str, str]:
        """Return the ``parameters`` of a Triton model configuration: JSON texts by name."""
        fields = asdict(self)
        return {name: json.dumps(fields[name]) for name in DESCRIBED}

    @classmethod
    def from_config(cls, config: Any) -> ServedModel:
        """Read the description out of a Triton ``ModelConfig`` message.

        Raises:
            ServerError: the configuration was not written by :func:`bmrl.export.write_triton_repository`.
        """
        try:
            texts = {name: parameter.string_value for name, parameter in config.parameters.items()}
            fields = {name: json.loads(texts[name]) for name in DESCRIBED}
            for name in ("image_size", "embed_dim"):
                check_integer(name, fields[name])
            for threshold in fields["thresholds"]:
                check_number("thresholds", threshold)
            images, probabilities, embedding, score = (entry.name for entry in (*config.input, *config.output))
            return cls(
                generators=tuple(Generator(**entry) for entry in fields["generators"]),
                image_size=fields["image_size"],
                embed_dim=fields["embed_dim"],
                thresholds=tuple(float(threshold) for threshold in fields["thresholds"]),
                max_batch_size=config.max_batch_size,
                limits=Limits.from_dict(fields["limits"]),
                tensors=(images, probabilities, embedding, score),
            )
        except (ArithmeticError, AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise ServerError(
                f"{shown(config.name)}: expected a model configuration written by bmrl, got one with {_named(error)}"
            ) from error


def import_tritonclient(module: str) -> Any:
    """Return ``tritonclient.<module>``.

    Raises:
        MissingExtraError: tritonclient, or the transport's package, is not installed.
        ServerError: it is installed and does not load, for example with an older grpcio.
    """
    try:
        return importlib.import_module(f"tritonclient.{module}")
    except (ImportError, RuntimeError) as error:  # tritonclient itself turns a missing transport into RuntimeError
        missing = (error, error.__cause__, error.__context__)
        if any(isinstance(one, ModuleNotFoundError) for one in missing):
            raise MissingExtraError("tritonclient", "serve") from error
        raise ServerError(f"tritonclient: expected a package that loads, got {_named(error)}") from error


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {shown(str(error))}"
