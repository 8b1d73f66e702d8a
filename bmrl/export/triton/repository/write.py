"""A Triton model repository: a folder that a Triton Inference Server serves unchanged.

Its layout, with Triton's Python backend::

folder/bmrl/config.pbtxt           inputs, outputs, batching, and what clients must know
folder/bmrl/labels.txt             class names, one per line, for the classification extension
folder/bmrl/1/model.pt             the inference graph, in any format of bmrl.export.FORMATS
folder/bmrl/1/artifact.json        its hash, contract, source and verification
folder/bmrl/1/model.py             runs the graph; needs PyTorch, not bmrl
folder/bmrl/1/artifact_runtime.py  loads it, once its hash has been compared

Triton's other backends need only the first four files.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from bmrl._checks import check_integer
from bmrl._files import locked, new_folder
from bmrl._values import check_choice, check_path, check_switch, described
from bmrl.errors import RangeError
from bmrl.export.artifact import MAX_BATCH, Artifact, describe_model, engines_of, write_entries
from bmrl.export.exporting import as_exportable, export_model
from bmrl.export.formats import FORMATS
from bmrl.export.standalone import STANDALONE
from bmrl.export.triton.contract import MODEL_NAME, ServedModel
from bmrl.export.triton.repository.backends import BACKENDS
from bmrl.export.triton.repository.checks import check_labels_fit, check_model
from bmrl.export.triton.repository.config import (
    LABELS_FILE,
    MOST,
    ServingOptions,
    model_config,
    write_config,
)
from bmrl.export.triton.repository.ensemble import write_ensemble
from bmrl.export.triton.repository.replacing import check_replaceable, other_versions, writing
from bmrl.export.verification import check_engine

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from bmrl.export.verification import Reference
    from bmrl.models import BMRL

__all__ = ["write_triton_repository"]

MAX_PIXELS, MAX_BYTES = 50_000_000, 32 * 2**20


def write_triton_repository(
    model: BMRL | str | os.PathLike[str] | Artifact,
    folder: str | os.PathLike[str],
    *,
    backend: str = "python",
    format: str | None = None,
    version: int = 1,
    images: Tensor | Reference | None = None,
    calibration: Tensor | None = None,
    max_batch_size: int | None = None,
    preferred_batch_sizes: Sequence[int] = (),
    max_queue_delay: float = 0.0,
    num_threads: int | None = None,
    instances: int = 1,
    device: Literal["cpu", "cuda"] = "cpu",
    engine: Literal["onnxruntime", "openvino"] | None = None,
    ensemble: bool = False,
    max_pixels: int | None = None,
    max_bytes: int | None = None,
) -> Path:
    """Write a repository that serves a model under the name ``bmrl``.

    Input ``images`` uint8 (batch, 3, image_size, image_size); outputs ``probabilities`` (batch, num_generators) and
    ``embedding`` (batch, embed_dim), float32; the backends ``pytorch`` and ``torch_aoti`` call them ``INPUT__0``,
    ``OUTPUT__0`` and ``OUTPUT__1``. Requests that wait together are run as one batch. The folder appears whole or not
    at all, and replaces an earlier repository that bmrl wrote.

    Args:
        model: the model, in any mode, on any device, which is not changed; or its folder; or an exported file, as
            ``Artifact("model.onnx")``.
        folder: a new or empty folder, or a repository that this function wrote; its parent exists.
        backend: ``"python"``; or ``"pytorch"`` (TorchScript), ``"torch_aoti"`` and ``"onnxruntime"``, which need a
            server that has them, as NVIDIA's images do.
        format: what a model is exported as, a name of :data:`~bmrl.export.FORMATS`; None takes the backend's float32
            form. None for an exported file.
        version: 1 or more. A server takes the highest; other versions of the same classes and options are kept.
        images: see :func:`~bmrl.export.export_model`; None for an exported file, which is verified already.
        calibration: see :func:`~bmrl.export.export_model`; None for an exported file.
        max_batch_size: maximum number of images per request and per run of the graph, up to 64; None takes 64, or
            what the backend can.
        preferred_batch_sizes: batches that the server runs at once, without waiting for more images.
        max_queue_delay: seconds, up to 10, that a request may wait for others to fill a batch.
        num_threads: CPU threads per run; None leaves the backend's choice.
        instances: copies of the model that run side by side.
        device: type of the server's device: ``"cuda"`` for ``"pytorch"``, ``"onnxruntime"`` and ``"torch_aoti"``, the
            last of which compiles for a GPU of this machine.
        engine: what runs an ONNX file in the Python backend, see :func:`~bmrl.export.load_artifact`.
        ensemble: adds ``bmrl_attribute``, which takes the bytes of an image file (JPEG, PNG or WebP) as a uint8
            vector ``image`` and returns ``index`` of the class, its ``probability``, and ``seen``, whether that reaches
            the model's first threshold. Decoding is the same as in :class:`bmrl.Attributor`.
        max_pixels: largest width times height that the ensemble decodes, at least that of the model's own images; None
            takes 50,000,000.
        max_bytes: largest file that the ensemble decodes, at least 4 bytes for each of the model's pixels; None takes
            32 MiB.

    Returns:
        ``folder``, which :class:`~bmrl.export.TritonServer` and any other Triton server serve.

    Raises:
        RepositoryError: ``folder`` holds something else, such as ``lost+found``, can't be replaced because it is a
            mount point, its other versions do not fit, or the system does not let it be written.
        ModelFolderError: the model's folder holds no usable model.
        ArtifactError: the exported file is damaged.
        MissingFileError: the parent of ``folder``, or the exported file, does not exist.
        MissingExtraError: tritonclient, or what the format needs, is not installed.
        ConfigError: a class name does not fit on one line of the labels file.
        RangeError: an option is out of range or of no use here, or the backend does not run the format.
        DTypeError: an option is of another type.
        BMRLError: the exported graph does not answer as the model does.
    """
    folder = check_path("folder", folder)
    check_choice("backend", backend, BACKENDS)
    check_integer("version", version, least=1, most=MOST)
    check_switch("ensemble", ensemble)
    if isinstance(model, Artifact):
        for what, given in (("format", format), ("images", images), ("calibration", calibration)):
            if given is not None:
                raise RangeError(f"{what}: expected None with an artifact, which is exported and verified, got one")
        source = _from_artifact(model, backend, engine)
    else:
        source = _from_model(as_exportable(model), backend, format, images, calibration, device, engine)
    serving = _serving_options(
        backend,
        source.kind,
        max_batch_size=max_batch_size,
        preferred_batch_sizes=preferred_batch_sizes,
        max_queue_delay=max_queue_delay,
        num_threads=num_threads,
        instances=instances,
        device=device,
        engine=engine,
    )
    served = ServedModel.from_description(source.description, serving.max_batch_size, BACKENDS[backend].tensors)
    check_labels_fit(served.labels)
    if not ensemble and (max_pixels, max_bytes) != (None, None):
        raise RangeError("max_pixels, max_bytes: expected None without ensemble, got some")
    limits = _decoding_limits(served, max_pixels, max_bytes)
    config = model_config(served, backend, source.name, serving)
    if folder.exists():
        with writing(folder), locked(folder.absolute().parent):  # or another export may replace it half-way through
            check_replaceable(folder)
            other_versions(folder, version, config)

    def finish(temporary: Path) -> None:
        check_replaceable(folder)  # another process may have put something there meanwhile
        for other in other_versions(folder, version, config):
            shutil.copytree(other, temporary / MODEL_NAME / other.name)
        check_model(temporary)

    with writing(folder), new_folder(folder, finish) as temporary:
        home = temporary / MODEL_NAME
        home.mkdir()
        place = home / str(version)
        place.mkdir()
        write_config(config, home)
        (home / LABELS_FILE).write_text("".join(f"{label}\n" for label in served.labels), encoding="utf-8")
        if backend == "python":
            shutil.copyfile(STANDALONE / "triton_infer.py", place / "model.py")
            shutil.copyfile(STANDALONE / "artifact_runtime.py", place / "artifact_runtime.py")
        source.put(place / source.name)
        if ensemble:
            write_ensemble(temporary, served, instances=instances, **limits)
    return folder


class _Source(NamedTuple):
    """Where the exported file of a repository comes from."""

    kind: str
    name: str
    """Of the file in the repository."""
    description: dict[str, Any]
    """What is known about it before it is written."""
    put: Callable[[Path], None]
    """Writes the file and its ``artifact.json``."""


def _from_artifact(artifact: Artifact, backend: str, engine: str | None) -> _Source:
    description = artifact.description
    kind = description["format"]
    check_choice(f"format of {artifact.path} for backend {backend}", kind, BACKENDS[backend].kinds)

    def put(path: Path) -> None:
        shutil.copyfile(artifact.path, path)
        write_entries(path.parent, {path.name: description})
        if engine is not None:
            check_engine(path, description, engine)

    return _Source(kind, f"model{artifact.path.suffix}", description, put)


def _from_model(
    model: BMRL,
    backend: str,
    format: str | None,
    images: Tensor | Reference | None,
    calibration: Tensor | None,
    device: str,
    engine: str | None,
) -> _Source:
    chosen = BACKENDS[backend].format if format is None else format
    runnable = [name for name, entry in FORMATS.items() if entry.kind in BACKENDS[backend].kinds]
    check_choice(f"format for backend {backend}", chosen, runnable)
    entry = FORMATS[chosen]

    def put(path: Path) -> None:
        target = device if device in entry.devices else entry.devices[0]
        export_model(model, path, chosen, images=images, calibration=calibration, device=target, engine=engine)

    return _Source(entry.kind, f"model{entry.suffix}", describe_model(model), put)


def _serving_options(
    backend: str,
    kind: str,
    *,
    max_batch_size: int | None,
    preferred_batch_sizes: Sequence[int],
    max_queue_delay: float,
    num_threads: int | None,
    instances: int,
    device: str,
    engine: str | None,
) -> ServingOptions:
    """Return the options of a server, once they fit the backend and the kind of file."""
    wanted = BACKENDS[backend]
    most = MAX_BATCH if wanted.batches else 1
    if max_batch_size is not None:
        check_integer("max_batch_size", max_batch_size, least=1)
        if max_batch_size > most:
            raise RangeError(f"max_batch_size: expected at most {most} for backend {backend}, got {max_batch_size}")
    if device == "cuda" and device not in wanted.devices:
        raise RangeError(f"device: expected 'cpu' for backend {backend}, got 'cuda'")
    engines = engines_of(kind) if wanted.engines else ()
    if engine is not None and engine not in engines:
        expected = " or ".join(map(repr, (None, *engines)))
        raise RangeError(f"engine: expected {expected} for backend {backend} and {kind}, got {described(engine)}")
    if not wanted.batches and (preferred_batch_sizes or max_queue_delay):
        raise RangeError(f"preferred_batch_sizes, max_queue_delay: expected none for backend {backend}, got some")
    return ServingOptions(
        max_batch_size=most if max_batch_size is None else max_batch_size,
        preferred_batch_sizes=preferred_batch_sizes,
        max_queue_delay=max_queue_delay,
        num_threads=num_threads,
        instances=instances,
        device=device,
        engine=engine,
    )


def _decoding_limits(served: ServedModel, max_pixels: int | None, max_bytes: int | None) -> dict[str, int]:
    """Return the limits of the ensemble, at least as large as the model's own images."""
    own = served.image_size**2
    limits = {
        "max_pixels": MAX_PIXELS if max_pixels is None else max_pixels,
        "max_bytes": MAX_BYTES if max_bytes is None else max_bytes,
    }
    for (what, limit), least in zip(limits.items(), (own, 4 * own), strict=True):
        check_integer(what, limit, least=1, most=MOST)
        if limit < least:
            raise RangeError(f"{what}: expected at least {least} for images of {served.image_size}², got {limit}")
    return limits
