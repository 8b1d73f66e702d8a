"""Triton model configurations: built as protobuf messages, parsed strictly, and checked for what Triton does not check.

Triton's server loads a configuration whose labels are too few, whose dims differ from the model's or whose parameters
are missing, and then answers wrongly. :func:`check_model` finds that before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmrl._checks import check_choice, check_integer, check_number
from bmrl._regular_files import open_regular
from bmrl._text import shown
from bmrl.errors import ConfigError, DTypeError, RangeError, RepositoryError, ServerError
from bmrl.export.artifact import read_artifact
from bmrl.export.triton.contract import MODEL_NAME, ServedModel, import_tritonclient

if TYPE_CHECKING:
    import os

__all__ = ["BACKENDS", "Backend", "ServingOptions", "check_model", "read_config", "read_triton_config", "write_config"]

CONFIG_FILE = "config.pbtxt"
LABELS_FILE = "labels.txt"
MOST_BYTES = 16 * 2**20  # of either
MOST = 2**31 - 1  # of a number in a configuration


@dataclass(frozen=True, kw_only=True, slots=True)
class Backend:
    """One of Triton's backends, and what it wants of a repository.

    Args:
        kinds: how the files that it runs are loaded, see :data:`~bmrl.export.FORMATS`.
        backend: ``backend`` of the configuration.
        platform: ``platform`` of the configuration.
        tensors: names of the input and the two outputs.
        filename: the file in the version folder, without its suffix.
        threads: the parameter that sets the CPU threads of one run.
        batches: whether it runs several images at once.
    """

    kinds: tuple[str, ...]
    backend: str
    platform: str = ""
    tensors: tuple[str, str, str] = ("images", "probabilities", "embedding")
    threads: str
    batches: bool = True


_LIBTORCH = ("INPUT__0", "OUTPUT__0", "OUTPUT__1")

BACKENDS: dict[str, Backend] = {
    "python": Backend(kinds=("torchscript", "pt2", "aoti", "onnx"), backend="python", threads="num_threads"),
    "pytorch": Backend(
        kinds=("torchscript",),
        backend="pytorch",
        platform="pytorch_libtorch",
        tensors=_LIBTORCH,
        threads="INTRA_OP_THREAD_COUNT",
    ),
    "torch_aoti": Backend(
        kinds=("aoti",),
        backend="pytorch",
        platform="torch_aoti",
        tensors=_LIBTORCH,
        threads="INTRA_OP_THREAD_COUNT",
        batches=False,
    ),
    "onnxruntime": Backend(kinds=("onnx",), backend="onnxruntime", threads="intra_op_thread_count"),
}
"""By name, as ``bmrl export --backend`` takes it."""


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
        check_choice("engine", self.engine, (None, "onnxruntime", "openvino"))


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
    images, probabilities, embedding = served.tensors
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
    """Write a message as ``config.pbtxt``, printed by protobuf."""
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
        return text_format.Parse(_read_text(path), messages.ModelConfig())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RepositoryError(f"{folder}: expected a Triton repository, got no {model}/{CONFIG_FILE}") from error
    except (OSError, text_format.ParseError, ValueError) as error:
        raise RepositoryError(f"{path}: expected a model configuration, got {shown(error)}") from error


def _read_text(path: Path) -> str:
    """Return a short text; OSError if the file can't be read, ValueError if it holds something else."""
    with open_regular(path) as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    return content.decode("utf-8")


def read_triton_config(folder: str | os.PathLike[str]) -> Any:
    """Parse the configuration of the model ``bmrl``; see :func:`read_config`."""
    return read_config(folder, MODEL_NAME)


def check_model(folder: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """Check that the model ``bmrl`` of a repository is whole and means what the exported model means.

    Compared are: backend and platform, names, types and dims of the tensors, labels and classes, batch sizes, the
    files of the version that a server would take, and the hash of the exported file.

    Returns:
        The exported file of the newest version, and its entry in ``artifact.json``.

    Raises:
        RepositoryError: something does not fit; the message says what was expected and what came.
        MissingFileError: a file is missing.
        MissingExtraError: tritonclient is not installed.
    """
    home = Path(folder) / MODEL_NAME
    config = read_triton_config(folder)
    try:
        served = ServedModel.from_config(config)
    except ServerError as error:
        raise RepositoryError(str(error)) from error
    versions = sorted(int(entry.name) for entry in home.iterdir() if entry.is_dir() and entry.name.isdecimal())
    versions = [version for version in versions if version > 0]
    if not versions:
        raise RepositoryError(f"{home}: expected a folder for a version, such as 1, got none")
    version = home / str(versions[-1])
    if "artifact" not in config.parameters:
        raise RepositoryError(f"{home / CONFIG_FILE}: parameters: expected artifact, the name of the file, got none")
    artifact = version / Path(config.parameters["artifact"].string_value).name
    description = read_artifact(artifact)
    backend = _backend_of(config)

    def same(what: str, expected: Any, got: Any) -> None:
        if expected != got:
            raise RepositoryError(f"{home / CONFIG_FILE}: {what}: expected {expected}, got {got}")

    wanted = BACKENDS[backend]
    same("name", MODEL_NAME, config.name)
    if description["format"] not in wanted.kinds:
        same(f"parameters.artifact for backend {backend}", " or ".join(wanted.kinds), description["format"])
    if backend == "python":
        for name in ("model.py", "artifact_runtime.py"):
            if not (version / name).is_file():
                raise RepositoryError(f"{version}: expected {name}, got none")
    else:
        same("default_model_filename", artifact.name, config.default_model_filename)
    size, width, classes = description["image_size"], description["embed_dim"], len(description["generators"])
    tensors = [(entry.name, _type_name(config, entry), list(entry.dims)) for entry in (*config.input, *config.output)]
    kinds = ("TYPE_UINT8", "TYPE_FP32", "TYPE_FP32")
    dims = ([3, size, size], [classes], [width])
    same("input and output", list(zip(wanted.tensors, kinds, dims, strict=True)), tensors)
    names = [entry["name"] for entry in description["generators"]]
    same("parameters.generators", names, list(served.labels))
    same("parameters.thresholds", description["thresholds"], list(served.thresholds))
    same("parameters.image_size and embed_dim", (size, width), (served.image_size, served.embed_dim))
    same("label_filename of the first output", LABELS_FILE, config.output[0].label_filename)
    check_labels(home / LABELS_FILE, names)
    largest = description["input"]["batch"][1] if wanted.batches else 1
    if not 1 <= config.max_batch_size <= largest:
        same("max_batch_size", f"1 to {largest}", config.max_batch_size)
    if config.HasField("dynamic_batching") and not wanted.batches:
        same("dynamic_batching", f"none for {wanted.platform}", "some")
    for preferred in config.dynamic_batching.preferred_batch_size:
        if not 1 <= preferred <= config.max_batch_size:
            same("preferred_batch_size", f"1 to max_batch_size {config.max_batch_size}", preferred)
    if config.HasField("response_cache") and config.response_cache.enable:
        same("response_cache", "none (it replays errors as answers)", "one")
    for group in config.instance_group:
        wanted_kind = "KIND_GPU" if description["device"] == "cuda" else "KIND_CPU"
        if group.kind != group.Kind.Value(wanted_kind) and backend != "onnxruntime":
            same("instance_group.kind", wanted_kind, group.Kind.Name(group.kind))
    return artifact, description


def check_labels_fit(labels: tuple[str, ...]) -> None:
    """Check that each class name fits on a line of the labels file.

    Raises:
        ConfigError: one does not.
    """
    for label in labels:
        if len(label.splitlines()) != 1:
            raise ConfigError(f"generators: expected names of one line, got {label!r}")


def _backend_of(config: Any) -> str:
    for name, backend in BACKENDS.items():
        if (config.backend, config.platform) == (backend.backend, backend.platform):
            return name
    known = ", ".join(BACKENDS)
    got = f"backend {config.backend!r} with platform {config.platform!r}"
    raise RepositoryError(f"{config.name}: expected a backend of {known}, got {got}")


def _type_name(config: Any, tensor: Any) -> str:
    return str(tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[tensor.data_type].name)


def check_labels(path: Path, names: list[str]) -> None:
    """Raise RepositoryError unless a labels file holds these names."""
    try:
        labels = _read_text(path).splitlines()
    except FileNotFoundError as error:
        raise RepositoryError(f"{path}: expected the class names, got no such file") from error
    except (OSError, ValueError) as error:
        raise RepositoryError(f"{path}: expected the class names, got {shown(error)}") from error
    if labels != names:
        raise RepositoryError(f"{path}: expected the classes {names} in this order, got {labels}")
