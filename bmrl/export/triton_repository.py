"""A Triton model repository: a folder that a Triton Inference Server serves as it stands.

Its layout::

folder/bmrl/config.pbtxt    inputs, outputs, batching, and what clients must know
folder/bmrl/labels.txt      class names, one a line, for the classification extension
folder/bmrl/1/model.py      runs the graph; needs PyTorch, not bmrl
folder/bmrl/1/model.pt      the inference graph as TorchScript

The configuration is built from Triton's own protobuf message, never by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmrl._checks import check_positive
from bmrl.errors import ConfigError, ModelFolderError, ServerError
from bmrl.export._atomic import new_folder
from bmrl.export.served_model import EMBEDDING, IMAGES, MODEL_NAME, PROBABILITIES, ServedModel, import_tritonclient
from bmrl.export.torchscript import export_torchscript

if TYPE_CHECKING:
    import os

    from bmrl.models import BMRL

__all__ = ["read_triton_config", "write_triton_repository"]

LABELS_FILE = "labels.txt"


def write_triton_repository(
    model: BMRL, folder: str | os.PathLike[str], *, max_batch_size: int = 64, num_threads: int | None = None
) -> Path:
    """Write a repository that serves ``model`` under the name ``bmrl`` and return its folder.

    Input ``images`` uint8 (batch, 3, image_size, image_size); outputs ``probabilities`` (batch, num_generators) and
    ``embedding`` (batch, embed_dim), float32. Requests that wait together are run as one batch. The folder appears
    whole or not at all, and replaces an earlier repository of ours.

    Args:
        model: the model, in any mode, on any device; it is not touched.
        folder: a new or empty folder, or a repository that this function wrote; its parent exists.
        max_batch_size: most images in one request and in one run of the graph.
        num_threads: CPU threads of one run; None leaves PyTorch's choice.

    Raises:
        ModelFolderError: ``folder`` holds something else.
        MissingFileError: the parent of ``folder`` does not exist.
        MissingExtraError: tritonclient is not installed.
        ConfigError: a class name does not fit on one line of the labels file.
        RangeError: ``max_batch_size`` or ``num_threads`` is not positive.
    """
    folder = Path(folder)
    check_positive("max_batch_size", max_batch_size)
    if num_threads is not None:
        check_positive("num_threads", num_threads)
    served = ServedModel(
        generators=model.config.generators,
        image_size=model.config.image_size,
        embed_dim=model.config.embed_dim,
        thresholds=model.config.thresholds,
        max_batch_size=max_batch_size,
    )
    for label in served.labels:
        if len(label.splitlines()) != 1:
            raise ConfigError(f"generators: expected names of one line, got {label!r}")
    config = _config_text(served, num_threads)
    _check_replaceable(folder)
    with new_folder(folder) as temporary:
        home = temporary / MODEL_NAME
        version = home / "1"
        version.mkdir(parents=True)
        (home / "config.pbtxt").write_text(config, encoding="utf-8")
        (home / LABELS_FILE).write_text("".join(f"{label}\n" for label in served.labels), encoding="utf-8")
        source = Path(__file__).with_name("_python_backend_model.py")
        (version / "model.py").write_bytes(source.read_bytes())
        export_torchscript(model, version / "model.pt")
    return folder


def read_triton_config(folder: str | os.PathLike[str]) -> Any:
    """Parse the model configuration of a repository strictly into a ``ModelConfig`` message.

    Raises:
        ModelFolderError: the repository holds no model ``bmrl``, or its configuration has an unknown field or a
            wrong type; the message gives line and column.
        MissingExtraError: tritonclient is not installed.
    """
    messages = import_tritonclient("grpc.model_config_pb2")
    from google.protobuf import text_format

    path = Path(folder) / MODEL_NAME / "config.pbtxt"
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), messages.ModelConfig())
    except OSError as error:
        raise ModelFolderError(f"{folder}: expected a Triton repository, got no {MODEL_NAME}/config.pbtxt") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ModelFolderError(f"{path}: expected a model configuration, got {' '.join(str(error).split())}") from error


def _check_replaceable(folder: Path) -> None:
    """Refuse a folder whose loss someone would regret."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ModelFolderError(f"{folder}: expected a folder, got a file")
    names = sorted(entry.name for entry in folder.iterdir())
    if not names:
        return
    wanted = f"{folder}: expected an empty folder or a repository written by bmrl"
    for name in names:
        if name != MODEL_NAME:
            raise ModelFolderError(f"{wanted}, got {name!r} in it")
    try:
        ServedModel.from_config(read_triton_config(folder))
    except (ModelFolderError, ServerError) as error:
        raise ModelFolderError(f"{wanted}, got a model of another origin") from error


def _config_text(served: ServedModel, num_threads: int | None) -> str:
    """Return the text of ``config.pbtxt``, printed by protobuf from the message itself."""
    messages = import_tritonclient("grpc.model_config_pb2")
    from google.protobuf import text_format

    image_dims = [3, served.image_size, served.image_size]
    config = messages.ModelConfig(
        name=MODEL_NAME,
        backend="python",
        max_batch_size=served.max_batch_size,
        input=[messages.ModelInput(name=IMAGES, data_type="TYPE_UINT8", dims=image_dims)],
        output=[
            messages.ModelOutput(
                name=PROBABILITIES,
                data_type="TYPE_FP32",
                dims=[len(served.generators)],
                label_filename=LABELS_FILE,
            ),
            messages.ModelOutput(name=EMBEDDING, data_type="TYPE_FP32", dims=[served.embed_dim]),
        ],
        instance_group=[messages.ModelInstanceGroup(kind="KIND_CPU", count=1)],
        dynamic_batching=messages.ModelDynamicBatching(),
    )
    zeros = messages.ModelWarmup.Input(data_type="TYPE_UINT8", dims=image_dims, zero_data=True)
    config.model_warmup.add(name="zeros", batch_size=1).inputs[IMAGES].CopyFrom(zeros)
    parameters = served.to_parameters()
    if num_threads is not None:
        parameters["num_threads"] = str(num_threads)
    for name, text in parameters.items():
        config.parameters[name].string_value = text
    return str(text_format.MessageToString(config))
