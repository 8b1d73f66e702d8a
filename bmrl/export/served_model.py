"""What a server says about the model it serves: the contract between repository, server and client."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from bmrl.errors import MissingExtraError, ServerError
from bmrl.models import Generator

__all__ = [
    "EMBEDDING",
    "ENCODED_IMAGE",
    "ENSEMBLE_NAME",
    "IMAGES",
    "MODEL_NAME",
    "PROBABILITIES",
    "SEEN",
    "ServedModel",
    "import_tritonclient",
]

MODEL_NAME = "bmrl"
IMAGES = "images"
PROBABILITIES = "probabilities"
EMBEDDING = "embedding"

ENSEMBLE_NAME = "bmrl_attribute"
ENCODED_IMAGE = "image"
SEEN = "seen"


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedModel:
    """All that a client needs to know; a server hands it out with the model's configuration.

    Args:
        generators: the classes, in the order of the probabilities.
        image_size: height and width of the input in pixels.
        embed_dim: width of the embedding.
        thresholds: maximum probabilities below which an image is called unseen.
        max_batch_size: most images in one request.
    """

    generators: tuple[Generator, ...]
    image_size: int
    embed_dim: int
    thresholds: tuple[float, ...]
    max_batch_size: int

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names, in the order of the probabilities."""
        return tuple(generator.name for generator in self.generators)

    def to_parameters(self) -> dict[str, str]:
        """Return the ``parameters`` of a Triton model configuration: JSON texts by name."""
        fields = asdict(self)
        return {name: json.dumps(fields[name]) for name in ("generators", "image_size", "embed_dim", "thresholds")}

    @classmethod
    def from_config(cls, config: Any) -> ServedModel:
        """Read the description out of a Triton ``ModelConfig`` message.

        Raises:
            ServerError: the configuration was not written by :func:`bmrl.export.write_triton_repository`.
        """
        try:
            fields = {name: json.loads(parameter.string_value) for name, parameter in config.parameters.items()}
            return cls(
                generators=tuple(Generator(**entry) for entry in fields["generators"]),
                image_size=int(fields["image_size"]),
                embed_dim=int(fields["embed_dim"]),
                thresholds=tuple(float(threshold) for threshold in fields["thresholds"]),
                max_batch_size=int(config.max_batch_size),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ServerError(
                f"{config.name}: expected a model configuration written by bmrl, got one with {_oneline(error)}"
            ) from error


def import_tritonclient(module: str) -> Any:
    """Return ``tritonclient.<module>``.

    Raises:
        MissingExtraError: tritonclient, or the transport's package, is not installed.
    """
    try:
        return importlib.import_module(f"tritonclient.{module}")
    except (ImportError, RuntimeError) as error:  # tritonclient itself turns a missing transport into RuntimeError
        raise MissingExtraError("tritonclient", "serve") from error


def _oneline(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
