"""Triton model configurations: built as protobuf messages, printed, and parsed strictly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmrl._checks import check_integer, check_number
from bmrl._regular_files import open_regular
from bmrl._text import shown
from bmrl._values import check_choice
from bmrl.errors import DTypeError, RangeError, RepositoryError
from bmrl.export.formats import ENGINES
from bmrl.export.triton.contract import MODEL_NAME, ServedModel, import_tritonclient
from bmrl.export.triton.repository.backends import BACKENDS

if TYPE_CHECKING:
    import os

__all__ = ["ServingOptions", "model_config", "read_config", "read_text", "read_triton_config", "write_config"]

CONFIG_FILE = "config.pbtxt"
LABELS_FILE = "labels.txt"
MOST_BYTES = 16 * 2**20  # of either
MOST = 2**31 - 1  # of a number in a configuration


@dataclass(frozen=True, kw_only=True, slots=True)
class ServingOptions:
    """How a server runs a model; :func:`~bmrl.export.write_triton_repository` says what each field means.

    Raises:
        RangeError: a number is out of range, or a preferred batch above ``max_batch_size``.
        DTypeError: a field is of another type.
    """

    max_batch_size: int
    preferred_batch_sizes: Sequence[int]
    max_queue_delay: float
    num_threads: int | None
    instances: int
    device: str
    engine: str | None

    def __post_init__(self) -> None:
        check_integer("max_batch_size", self.max_batch_size, least=1)
        sizes: Any = self.preferred_batch_sizes
        if not isinstance(sizes, Sequence):
            raise DTypeError(f"preferred_batch_sizes: expected a sequence of integers, got {type(sizes).__name__}")
        for size in sizes:
            check_integer("preferred_batch_sizes", size)
            if not 1 <= size <= self.max_batch_size:
                raise RangeError(
                    f"preferred_batch_sizes: expected 1 to max_batch_size {self.max_batch_size}, got {size}"
                )
        check_number("max_queue_delay", self.max_queue_delay)
        if not 0 <= self.max_queue_delay <= 10:
            raise RangeError(f"max_queue_delay: expected 0 to 10 seconds, got {self.max_queue_delay}")
        if self.num_threads is not None:
            check_integer("num_threads", self.num_threads, least=1, most=MOST)
        check_integer("instances", self.instances, least=1, most=MOST)
        check_choice("device", self.device, ("cpu", "cuda"))
        check_choice("engine", self.engine, (None, *ENGINES))


def model_config(served: ServedModel, backend: str, artifact: str, options: ServingOptions) -> Any:
    """Return the ``ModelConfig`` message of a model whose file is called ``artifact``.

    Args:
        served: the model.
        backend: a name of :data:`BACKENDS`.
        artifact: the file's name in the version folder.
        options: how to run it.
    """
    messages = import_tritonclient("grpc.model_config_pb2")
    wanted = BACKENDS[backend]
    images, probabilities, embedding, score = served.tensors
    image_dims = [3, served.image_size, served.image_size]
    kind = "KIND_GPU" if options.device == "cuda" else "KIND_CPU"
    config = messages.ModelConfig(
        name=MODEL_NAME,
        backend=wanted.backend,
        platform=wanted.platform,
        default_model_filename="" if backend == "python" else artifact,
        max_batch_size=served.max_batch_size,
        input=[messages.ModelInput(name=images, data_type="TYPE_UINT8", dims=image_dims)],
        output=[
            messages.ModelOutput(
                name=probabilities, data_type="TYPE_FP32", dims=[len(served.generators)], label_filename=LABELS_FILE
            ),
            messages.ModelOutput(name=embedding, data_type="TYPE_FP32", dims=[served.embed_dim]),
            messages.ModelOutput(name=score, data_type="TYPE_FP32", dims=[1]),
        ],
        instance_group=[messages.ModelInstanceGroup(kind=kind, count=options.instances)],
        version_policy=messages.ModelVersionPolicy(latest=messages.ModelVersionPolicy.Latest(num_versions=1)),
    )
    if wanted.batches:
        config.dynamic_batching.preferred_batch_size.extend(options.preferred_batch_sizes)
        config.dynamic_batching.max_queue_delay_microseconds = round(options.max_queue_delay * 1e6)
    zeros = messages.ModelWarmup.Input(data_type="TYPE_UINT8", dims=image_dims, zero_data=True)
    config.model_warmup.add(name="zeros", batch_size=1).inputs[images].CopyFrom(zeros)
    parameters = served.to_parameters() | {"artifact": artifact}
    if options.num_threads is not None:
        parameters[wanted.threads] = str(options.num_threads)
    if options.engine is not None:
        parameters["engine"] = options.engine
    for name, text in parameters.items():
        config.parameters[name].string_value = text
    return config


def write_config(config: Any, folder: Path) -> None:
    """Write a ``ModelConfig`` message as ``config.pbtxt``, printed by protobuf.

    Args:
        config: the message.
        folder: of the model.
    """
    from google.protobuf import text_format

    (folder / CONFIG_FILE).write_text(text_format.MessageToString(config), encoding="utf-8")


def read_config(folder: str | os.PathLike[str], model: str) -> Any:
    """Parse the configuration of a model of a repository strictly into a ``ModelConfig`` message.

    Raises:
        RepositoryError: the repository holds no such model, or its configuration has an unknown field or a wrong
            type; the message gives line and column.
        MissingExtraError: tritonclient is not installed.
    """
    messages = import_tritonclient("grpc.model_config_pb2")
    from google.protobuf import text_format

    path = Path(folder) / model / CONFIG_FILE
    try:
        return text_format.Parse(read_text(path), messages.ModelConfig())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RepositoryError(f"{folder}: expected a Triton repository, got no {model}/{CONFIG_FILE}") from error
    except (OSError, text_format.ParseError, ValueError) as error:
        raise RepositoryError(f"{path}: expected a model configuration, got {shown(error)}") from error


def read_text(path: Path) -> str:
    """Return the content of a short text file in UTF-8.

    Raises:
        OSError: the file can't be read.
        ValueError: it is too large, or holds other bytes.
    """
    with open_regular(path) as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    return content.decode("utf-8")


def read_triton_config(folder: str | os.PathLike[str]) -> Any:
    """Parse the configuration of the model ``bmrl``; see :func:`read_config`."""
    return read_config(folder, MODEL_NAME)
