"""What is known about an exported file: within it, and in ``artifact.json`` next to it.

``artifact.json`` holds an entry for each exported file of its folder, by file name: its SHA-256, classes, limits,
input contract, source, versions, and how it was verified. bmrl loads no file without its entry, or with another
content.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bmrl._checks import check_dtype, check_integer, check_shape
from bmrl._extras import missing_extra
from bmrl._files import flush, locked, new_file, write_text
from bmrl._text import shown
from bmrl._values import check_switch, described
from bmrl._version import __version__
from bmrl.errors import (
    ArtifactError,
    DeviceError,
    DTypeError,
    MissingExtraError,
    MissingFileError,
    RangeError,
    ShapeError,
)
from bmrl.export.probe import check_probe
from bmrl.export.standalone import artifact_runtime
from bmrl.inference.decider import limits_of
from bmrl.models.serialization import WEIGHTS, encoded_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from bmrl.models import BMRL

__all__ = ["MAX_BATCH", "Artifact", "engines_of", "load_artifact", "read_artifact"]

MAX_BATCH = 64
"""Maximum batch size of an exported graph."""


class Artifact:
    """An exported file, checked by its hash to be the one that was verified.

    Making one compares the file's SHA-256, and what the file says about itself, with its entry in ``artifact.json``;
    the graph is loaded when it is first run. :func:`load_artifact` also loads it and compares an answer.

    Args:
        path: the file, with its ``artifact.json`` next to it.
        num_threads: CPU threads per run, >= 1; None leaves the choice to PyTorch or the engine.
        engine: what runs the file: for ONNX ``"onnxruntime"`` (the default) or ``"openvino"``; else None.

    Attributes:
        path: the file.
        description: its entry in ``artifact.json``.

    Raises:
        MissingFileError: the file or its ``artifact.json`` does not exist.
        ArtifactError: one of the two is damaged, or they do not belong together.
        RangeError: ``engine`` does not run the file, or ``num_threads`` is out of range.
        DTypeError: an argument is of another type.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, num_threads: int | None = None, engine: str | None = None
    ) -> None:
        if num_threads is not None:
            check_integer("num_threads", num_threads, least=1)
        self.description = read_artifact(path)
        self.path = Path(path)
        kind = self.description.get("format")
        choices = engines_of(kind)
        if engine is not None and engine not in choices:
            expected = " or ".join(map(repr, (None, *choices)))
            raise RangeError(f"engine: expected {expected} for a file of format {kind}, got {described(engine)}")
        self.num_threads = num_threads
        self.engine = engine

    @cached_property
    def run(self) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
        """The graph, loaded: a function of images.

        It takes uint8 ``(batch, 3, image_size, image_size)`` on the CPU with a batch of 1 to 64, and returns
        probabilities ``(batch, num_generators)``, embeddings ``(batch, embed_dim)`` and scores ``(batch, 1)``, float32,
        on the CPU. What scores mean is in the entry's ``limits``, see :class:`bmrl.inference.Limits`.

        Raises:
            ArtifactError: the file does not fit this PyTorch or processor, or has been changed.
            MissingExtraError: the engine is not installed.
        """
        try:
            graph = artifact_runtime.load(self.path, num_threads=self.num_threads, engine=self.engine)
            return _checked(graph, self.description)
        except ImportError as error:
            raise missing_extra(error) or MissingExtraError(error.name or str(error), "export") from error
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise ArtifactError(shown(error)) from error

    def __repr__(self) -> str:
        return f"Artifact({str(self.path)!r})"


def load_artifact(
    path: str | os.PathLike[str], *, num_threads: int | None = None, engine: str | None = None, probe: bool = True
) -> Artifact:
    """Load a file that bmrl exported, in any format, after checking that it is the one that was verified.

    Its hash, and what it says about itself, must be those of its entry in ``artifact.json``; and it must answer a
    pattern as it did at export, which a file in bfloat16 or 8-bit integers may not on a processor of another kind.

    Args:
        path: the file, with its ``artifact.json`` next to it.
        num_threads: CPU threads per run, >= 1; None leaves the choice to PyTorch or the engine.
        engine: what runs the file: for ONNX ``"onnxruntime"`` (the default) or ``"openvino"``; else None.
        probe: False loads a file without asking it the pattern, which takes as long as the answer for one image.

    Returns:
        The file, loaded.

    Raises:
        MissingFileError: the file or its ``artifact.json`` does not exist.
        ArtifactError: either is damaged, they do not belong together, or the file does not fit this PyTorch or
            processor.
        VerificationError: the file gives other answers than at export.
        RangeError: ``engine`` does not run it, or ``num_threads`` is out of range.
        MissingExtraError: the engine is not installed.
    """
    check_switch("probe", probe)
    artifact = Artifact(path, num_threads=num_threads, engine=engine)
    run = artifact.run
    if probe:
        check_probe(path, run, artifact.description, engine)
    return artifact


def _checked(run: Callable[[Tensor], tuple[Tensor, ...]], description: dict[str, Any]) -> Callable[..., Any]:
    """Return ``run`` for images that the file was made for: others it might take and misread."""
    side = int(description["image_size"])

    def run_checked(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        check_shape("images", images, "batch channels height width", channels=3, height=side, width=side)
        check_dtype("images", images, torch.uint8)
        if not 1 <= len(images) <= MAX_BATCH:
            raise ShapeError(f"images: expected a batch of 1 to {MAX_BATCH}, got {len(images)}")
        if images.device.type != "cpu":
            raise DeviceError(f"images: expected a tensor on the CPU, got one on {images.device}")
        probabilities, embedding, score = run(images)
        return probabilities, embedding, score

    return run_checked


def engines_of(kind: object) -> tuple[str, ...]:
    """Return what can run files of a kind, the default first; none where PyTorch does.

    Args:
        kind: ``format`` of an entry of ``artifact.json``.
    """
    loader = artifact_runtime.LOADERS.get(kind) if isinstance(kind, str) else None
    return () if loader is None else tuple(engine for engine in loader.engines if engine is not None)


def read_artifact(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the entry of an exported file in ``artifact.json``, once the two have been compared.

    Args:
        path: the file, with its ``artifact.json`` next to it.

    Raises:
        DTypeError: ``path`` is not a path.
        MissingFileError: the file or its ``artifact.json`` does not exist.
        ArtifactError: either is damaged, or they do not belong together.
    """
    if not isinstance(path, str | os.PathLike):
        raise DTypeError(f"path: expected the path of an exported file, got {type(path).__name__}")
    try:
        return artifact_runtime.describe(path)
    except FileNotFoundError as error:
        raise MissingFileError(str(error)) from error
    except (OSError, ValueError) as error:
        raise ArtifactError(shown(error)) from error


def describe_model(model: BMRL) -> dict[str, Any]:
    """Return what every export of ``model`` says: classes, thresholds, limits, contract, source and versions."""
    config = model.config
    side, classes = config.image_size, len(config.generators)
    return {
        "generators": [asdict(generator) for generator in config.generators],
        "thresholds": list(config.decision.thresholds),
        "limits": limits_of(model).to_dict(),
        "image_size": side,
        "embed_dim": config.embed_dim,
        "input": {
            "name": "images",
            "dtype": "uint8",
            "shape": ["batch", 3, side, side],
            "channels": "RGB",
            "batch": [1, MAX_BATCH],
        },
        "outputs": [
            {"name": "probabilities", "dtype": "float32", "shape": ["batch", classes]},
            {"name": "embedding", "dtype": "float32", "shape": ["batch", config.embed_dim]},
            {"name": "score", "dtype": "float32", "shape": ["batch", 1]},
        ],
        "source": {WEIGHTS: _weights_sha256(model)},
        "versions": {"bmrl": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
        "processor": torch.backends.cpu.get_cpu_capability(),
    }


def publish(temporary: Path, path: Path, description: dict[str, Any]) -> None:
    """Move a finished file to ``path`` and put its entry into ``artifact.json`` there.

    Both are on the disk before one is moved. Between the two moves, bmrl does not load the file: its hash is not
    that of the old entry.
    """
    flush(temporary)
    with locked(path.parent):
        entries = read_entries(path.parent)
        there = {name: entry for name, entry in entries.items() if (path.parent / name).is_file()}
        for left in path.parent.glob(f".{artifact_runtime.DESCRIPTION}.*"):
            shutil.rmtree(left, ignore_errors=True)  # by a kill; any writer there would hold the lock that we hold
        with new_file(path.parent / artifact_runtime.DESCRIPTION) as listing:
            listing.write_text(_as_text(there | {path.name: description}), encoding="utf-8")
            flush(listing)
            os.replace(temporary, path)


def withdraw(path: Path) -> None:
    """Remove an exported file and its entry in ``artifact.json``, if there are any."""
    with locked(path.parent):
        entries = read_entries(path.parent)
        path.unlink(missing_ok=True)
        if entries.pop(path.name, None) is not None:
            write_entries(path.parent, entries)


def write_entries(folder: Path, entries: dict[str, Any]) -> None:
    """Write ``artifact.json``."""
    write_text(folder / artifact_runtime.DESCRIPTION, _as_text(entries))


def _as_text(entries: dict[str, Any]) -> str:
    everything = {"schema": artifact_runtime.SCHEMA, "artifacts": entries}
    return json.dumps(everything, indent=2, ensure_ascii=False) + "\n"


def read_entries(folder: Path) -> dict[str, Any]:
    """Return the entries of ``artifact.json``; none where it does not exist.

    Raises:
        ArtifactError: it was not written by bmrl.
    """
    listing = folder / artifact_runtime.DESCRIPTION
    if not os.path.lexists(listing):
        return {}
    try:
        return artifact_runtime.read_entries(listing)
    except ValueError as error:
        raise ArtifactError(shown(error)) from error


def _weights_sha256(model: BMRL) -> str:
    """Return the SHA-256 that ``model.safetensors`` has in the folder that :func:`bmrl.save_model` writes."""
    return hashlib.sha256(encoded_weights(model)).hexdigest()
