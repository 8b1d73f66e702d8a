"""The one way in which an exported file comes about: written, verified, published."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bmrl._devices import as_device
from bmrl._files import scratch
from bmrl._results import Result
from bmrl._text import shown
from bmrl._values import described
from bmrl.errors import BMRLError, DTypeError, ExportError, MissingFileError, RangeError
from bmrl.export.artifact import describe_model, publish, read_entries, write_entries
from bmrl.export.formats import FORMATS, check_format
from bmrl.export.graph import InferenceGraph
from bmrl.export.job import Job
from bmrl.export.standalone import artifact_runtime
from bmrl.export.verification import Reference, Verification, check_images, reference, verify
from bmrl.inference.running import resolve_model
from bmrl.models import BMRL

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ExportResult", "as_exportable", "export_model"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.float32}


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportResult(Result):
    """An exported file, verified.

    Args:
        path: the file; ``artifact.json`` next to it has its entry.
        format: a name of :data:`~bmrl.export.FORMATS`.
        device: type of the device that it was made for.
        sha256: of its content, in hexadecimal digits.
        bytes: its size.
        verification: how its answers differ from the model's.
    """

    path: Path
    format: str
    device: str
    sha256: str
    bytes: int
    verification: Verification


def export_model(
    model: BMRL | str | os.PathLike[str],
    path: str | os.PathLike[str],
    format: str = "torchscript",
    *,
    images: Tensor | Reference | None = None,
    calibration: Tensor | None = None,
    device: str | torch.device = "cpu",
    engine: str | None = None,
) -> ExportResult:
    """Write the inference graph of a model to a file, and its entry in ``artifact.json``, once the file is verified.

    Every format takes uint8 images ``(batch, 3, image_size, image_size)`` with a batch of 1 to 64, and returns
    probabilities ``(batch, num_generators)``, embeddings ``(batch, embed_dim)`` and scores ``(batch, 1)``, all float32;
    the entry has the limits that the scores are compared with. Verified means: a fresh process that can't import bmrl
    has loaded the file and answered batches of 1, 3 and 64. A float32 file that differs from the model by more than
    1e-4 (a score by 1e-3 of the largest), or in a decision, and any file that answers NaN, is not written. The model is
    not changed; the file appears whole or not at all. What an export that was killed has left next to ``path`` is
    removed by the next one.

    Args:
        model: the model, in any mode, on any device; or its folder.
        path: the file to write; its folder exists. Its suffix is the format's, or none where the format does not need
            one.
        format: a name of :data:`~bmrl.export.FORMATS`.
        images: ``(n, 3, image_size, image_size)`` uint8 to verify with, best a test split; None takes patterns.
        calibration: images of the same shape and dtype that give the scales of ``"onnx-int8"``, best a few hundred of
            the training split; required there and ignored elsewhere.
        device: what the file is made for, as PyTorch names it: ``"cpu"``, or for AOTInductor a CUDA device;
            ``"auto"`` is the accelerator where there is one that the format can be made for.
        engine: for ONNX, what runs the file when it is verified, see :func:`~bmrl.export.load_artifact`.

    Returns:
        The file, its hash and size, and what the verification found.

    Raises:
        RangeError: ``format``, ``device`` or ``engine`` is unknown or does not fit, or ``path`` has the suffix of
            another format.
        DeviceError: ``device`` is not there.
        DTypeError: ``model`` or ``path`` is something else.
        MissingFileError: the folder of ``path``, or of the model, does not exist.
        ModelFolderError: the folder holds no usable model.
        MissingExtraError: a package that the format needs is not installed.
        ShapeError, DTypeError: ``images`` or ``calibration`` do not fit, or are needed and missing.
        ArtifactError: the ``artifact.json`` next to ``path`` was not written by bmrl.
        ExportError: ``path`` can't be written, there is no C++ compiler for AOTInductor, or the exporter of PyTorch or
            ONNX does not take the model.
        VerificationError: the file does not load, or does not answer as the model does.
    """
    check_format("format", format)
    entry = FORMATS[format]
    path = _checked_path(path, format)
    place = _checked_device(device, format)
    if engine is not None and engine not in entry.engines:
        choices = " or ".join(map(repr, (None, *entry.engines)))
        raise RangeError(f"engine: expected {choices} for {format}, got {described(engine)}")
    if entry.calibrated and calibration is None:
        raise DTypeError(f"calibration: expected images for {format}, got None")
    model = as_exportable(model)
    if entry.calibrated and calibration is not None:
        calibration = check_images("calibration", calibration, model.config.image_size)
    if images is not None and not isinstance(images, Reference):
        images = check_images("images", images, model.config.image_size)
    entry.check_requirements(engine)
    try:
        with scratch(path) as folder:
            read_entries(path.parent)  # refuses a foreign artifact.json before the work
            expected = images if isinstance(images, Reference) else reference(model, images)
            graph = InferenceGraph(model, dtype=_DTYPES[entry.precision], device=place)
            description: dict[str, Any] = {"format": entry.kind, "precision": entry.precision, "device": place.type}
            description |= describe_model(model)
            if artifact_runtime.LOADERS[entry.kind].same_processor:
                description["processor_features"] = artifact_runtime.processor_features()
            temporary = folder / path.name
            _write(temporary, Job(graph, description, calibration), format)
            description |= {"sha256": artifact_runtime.sha256_of(temporary), "bytes": temporary.stat().st_size}
            write_entries(folder, {path.name: description})
            exact = entry.precision == "fp32"
            found = verify(temporary, expected, description, exact=exact, engine=engine)
            description["verification"] = found.to_dict()
            publish(temporary, path, description)
    except BMRLError:
        raise
    except OSError as error:
        raise ExportError(f"{path}: expected to be written, got {shown(error.strerror or error)}") from error
    return ExportResult(
        path=path,
        format=format,
        device=place.type,
        sha256=description["sha256"],
        bytes=description["bytes"],
        verification=found,
    )


def as_exportable(model: BMRL | str | os.PathLike[str]) -> BMRL:
    """Return a model, loaded on the CPU if a folder is given; of one that ``torch.compile`` wraps, the model itself.

    Raises:
        DTypeError: ``model`` is neither a model nor a path.
        MissingFileError, ModelFolderError: the folder holds no usable model.
    """
    found = resolve_model(model, "cpu" if isinstance(model, str | os.PathLike) else None)
    inner = getattr(found, "_orig_mod", found)
    if not isinstance(inner, BMRL):
        raise DTypeError(f"model: expected a model of bmrl or its folder, got {type(model).__name__}")
    return inner


def _checked_device(device: Any, format: str) -> torch.device:
    """Return a device that is there, of a type that the format can be made for."""
    devices = FORMATS[format].devices
    if isinstance(device, str) and device == "auto":
        place = as_device("auto")
        return place if place.type in devices else as_device(devices[0])
    if str(device).partition(":")[0] not in devices:
        choices = " or ".join(map(repr, devices))
        raise RangeError(f"device: expected {choices} for {format}, got {described(device)}")
    return as_device(device)


def _checked_path(path: Any, format: str) -> Path:
    """Return the path of a file that may be written, or replaced."""
    if not isinstance(path, str | os.PathLike):
        raise DTypeError(f"path: expected the path of a file, got {type(path).__name__}")
    if "\0" in str(path):
        raise RangeError(f"path: expected a path without a null character, got {str(path)!r}")
    path = Path(path)
    entry = FORMATS[format]
    foreign = entry.needs_suffix or path.suffix in {one.suffix for one in FORMATS.values()}
    if path.suffix != entry.suffix and foreign:
        raise RangeError(f"path: expected a file with suffix {entry.suffix} for {format}, got {path}")
    if path.name == artifact_runtime.DESCRIPTION:
        raise RangeError(
            f"path: expected another file than {artifact_runtime.DESCRIPTION}, which describes it, got {path}"
        )
    if not path.absolute().parent.is_dir():
        raise MissingFileError(f"{path}: expected an existing parent folder, got none at {path.absolute().parent}")
    if os.path.exists(path) and not path.is_file():
        raise ExportError(f"{path}: expected a file to write, got {'a folder' if path.is_dir() else 'a special file'}")
    return path


def _write(path: Path, job: Job, format: str) -> None:
    """Write a file; ExportError where the format's exporter does not take the model."""
    try:
        FORMATS[format].write(job, path)
    except (BMRLError, OSError):
        raise
    except Exception as error:  # of PyTorch's and ONNX's exporters, which raise many kinds
        reason = shown((str(error).strip() or type(error).__name__).splitlines()[0])
        raise ExportError(f"{format}: expected a model that can be written in this format, got {reason}") from error
