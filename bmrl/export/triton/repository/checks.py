"""Checks of a repository's model for what Triton itself does not check.

Triton's server loads a configuration whose labels are too few, whose dims differ from the model's or whose parameters
are missing, and then answers wrongly. :func:`check_model` finds that before.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmrl._text import shown
from bmrl.errors import ConfigError, RepositoryError, ServerError
from bmrl.export.artifact import read_artifact
from bmrl.export.triton.contract import MODEL_NAME, ServedModel
from bmrl.export.triton.repository.backends import BACKENDS
from bmrl.export.triton.repository.config import CONFIG_FILE, LABELS_FILE, read_text, read_triton_config

if TYPE_CHECKING:
    import os

__all__ = ["check_labels", "check_labels_fit", "check_model"]


def check_model(folder: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """Check that the model ``bmrl`` of a repository is whole and means what the exported model means.

    Compared are: backend and platform, names, types and dims of the tensors, labels and classes, batch sizes, the
    files of the version that a server would take, and the hash of the exported file.

    Args:
        folder: the repository.

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
    tensors = [(entry.name, _type_name(entry), list(entry.dims)) for entry in (*config.input, *config.output)]
    kinds = ("TYPE_UINT8", "TYPE_FP32", "TYPE_FP32", "TYPE_FP32")
    dims = ([3, size, size], [classes], [width], [1])
    same("input and output", list(zip(wanted.tensors, kinds, dims, strict=True)), tensors)
    names = [entry["name"] for entry in description["generators"]]
    same("parameters.generators", names, list(served.labels))
    same("parameters.thresholds", description["thresholds"], list(served.thresholds))
    same("parameters.limits", description["limits"], served.limits.to_dict())
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
        if group.kind != group.Kind.Value(wanted_kind) and not wanted.moves:
            same("instance_group.kind", wanted_kind, group.Kind.Name(group.kind))
    return artifact, description


def check_labels_fit(labels: tuple[str, ...]) -> None:
    """Check that each class name fits on a line of the labels file.

    Args:
        labels: the class names.

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


def _type_name(tensor: Any) -> str:
    return str(tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[tensor.data_type].name)


def check_labels(path: Path, names: list[str]) -> None:
    """Check that a labels file holds class names.

    Args:
        path: the file.
        names: what it has to hold, one per line.

    Raises:
        RepositoryError: it does not.
    """
    try:
        labels = read_text(path).splitlines()
    except FileNotFoundError as error:
        raise RepositoryError(f"{path}: expected the class names, got no such file") from error
    except (OSError, ValueError) as error:
        raise RepositoryError(f"{path}: expected the class names, got {shown(error)}") from error
    if labels != names:
        raise RepositoryError(f"{path}: expected the classes {names} in this order, got {labels}")
