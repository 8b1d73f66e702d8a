"""A model on disk: a folder with ``config.json`` and ``model.safetensors``, never a pickle.

The weights carry the configuration that they were trained with. What ``config.json`` says must agree, in everything
but the thresholds, which may be edited: a network does not depend on them.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from typing import TYPE_CHECKING, Any

import safetensors
import torch
from safetensors.torch import save, save_file

from bmrl._checks import check_path, described
from bmrl._files import locked, new_file, write_text
from bmrl._json import parse_json, read_json
from bmrl._version import __version__
from bmrl.errors import BMRLError, ConfigError, MissingFileError, ModelFolderError
from bmrl.models._restorable import blueprint, check_tensor, restorable
from bmrl.models.config import BMRLConfig

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from bmrl.models.assembly import BMRL

__all__ = ["encoded_weights", "load_model", "save_model"]

_logger = logging.getLogger(__name__)

FORMAT = 2
"""Version of the folder's layout; raised when an older library could not read it."""
UNBOUND_FORMAT = 1
"""The version whose weights did not carry their configuration."""

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PENDING = ".model.safetensors.pending"
"""Weights that are whole, and wait for their ``config.json``: see :func:`save_model`."""
BOUND = "bmrl_config"
"""The entry of the weights' metadata that holds the configuration."""


def save_model(model: nn.Module, folder: str | os.PathLike[str]) -> Path:
    """Write a model as ``config.json`` and ``model.safetensors``.

    Both files change as a pair: whenever the process is killed, the folder loads as the model that it held before or
    as this one. Other files of the folder stay as they are.

    Args:
        model: a BMRL on any device, in float16, bfloat16, float32 or float64, which is kept in the file;
            :func:`load_model` loads all of them in float32. What ``torch.compile``, ``DataParallel``,
            ``DistributedDataParallel`` and ``AveragedModel`` wrap is saved without the wrapper.
        folder: made if missing.

    Returns:
        The folder.

    Raises:
        ModelFolderError: :func:`load_model` could not give the model back, such as one whose parts were replaced by
            hand, quantized, sharded or tied, or whose values are not finite; the message names the part. Or
            ``folder`` is a file, or one of the two files in it is a folder.
        DTypeError, RangeError: ``folder`` is no path.
    """
    target = check_path("folder", folder)
    config, tensors = restorable(model)
    header = {"format": FORMAT, "bmrl_version": __version__, "model": config.to_dict()}
    try:
        target.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ModelFolderError(f"folder: expected a folder or a new path, got a file at {error.filename}") from error
    for name in (CONFIG, WEIGHTS, PENDING):
        if (target / name).is_dir():
            raise ModelFolderError(f"folder: expected a file or none at {target / name}, got a folder")
    with locked(target):
        for stale in (*target.glob(f".{PENDING}.*"), *target.glob(f".{CONFIG}.*"), *target.glob(".saving-*")):
            if stale.is_dir():  # of a process that was killed: nobody else holds the lock
                shutil.rmtree(stale, ignore_errors=True)
        with new_file(target / PENDING) as temporary:
            temporary.touch()
            mode = temporary.stat().st_mode
            save_file(tensors, temporary, metadata=_metadata(config))
            temporary.chmod(mode)  # safetensors lets nobody but the owner read, a server may be somebody else
        write_text(target / CONFIG, json.dumps(header, indent=2) + "\n")  # from here on, what is pending is loaded
        os.replace(target / PENDING, target / WEIGHTS)
    return target


def encoded_weights(config: BMRLConfig, tensors: dict[str, Tensor]) -> bytes:
    """Return the bytes of a ``model.safetensors``: the tensors, and the configuration that they belong to."""
    return save(tensors, metadata=_metadata(config))


def _metadata(config: BMRLConfig) -> dict[str, str]:
    # One entry: safetensors writes several in any order, and equal models shall make equal files.
    return {BOUND: json.dumps(_bound(config), sort_keys=True, separators=(",", ":"))}


def _bound(config: BMRLConfig) -> dict[str, Any]:
    """Return what the weights depend on."""
    fields = config.to_dict()
    del fields["thresholds"]
    return fields


def load_model(folder: str | os.PathLike[str]) -> BMRL:
    """Return the model of a folder, in evaluation mode, on the CPU in float32.

    No size of the configuration is built before the weights are known to have it.

    Args:
        folder: what :func:`save_model` wrote. The thresholds in its ``config.json`` may have been edited. A folder of
            the oldest layout, whose weights do not say which configuration is theirs, loads with a warning in the log.

    Raises:
        MissingFileError: the folder or one of its two files does not exist.
        ModelFolderError: another version's layout, a damaged file, a configuration that is not the one that the
            weights were saved with, or weights that do not fit it or are not finite.
        DTypeError, RangeError: ``folder`` is no path.
    """
    source = check_path("folder", folder)
    if not source.is_dir():
        raise MissingFileError(f"model: expected a folder with config.json and model.safetensors, got {source}")
    layout, config = _read_config(source / CONFIG)
    weights = _weights_of(source, config, layout)
    model = _blueprint_of(config, weights)
    model.load_state_dict(weights.read(model.state_dict()), assign=True)
    return model.eval()


def _read_config(path: Path) -> tuple[int, BMRLConfig]:
    """Return the version of the folder's layout and the configuration."""
    if not path.is_file():
        raise MissingFileError(f"model: expected {path}, got no such file")
    try:
        header = read_json(path)
    except ConfigError as error:
        raise ModelFolderError(str(error)) from error
    if not isinstance(header, dict) or "format" not in header or not isinstance(header.get("model"), dict):
        found = sorted(header)[:5] if isinstance(header, dict) else type(header).__name__
        raise ModelFolderError(f"{path}: expected the keys format, bmrl_version and model, got {str(found)[:200]}")
    layout = header["format"]
    if isinstance(layout, bool) or layout not in (UNBOUND_FORMAT, FORMAT):
        raise ModelFolderError(
            f"{path}: expected format {FORMAT} (bmrl {__version__}), got format {described(layout)} written by "
            f"bmrl {described(header.get('bmrl_version', 'unknown'))}"
        )
    try:
        return layout, BMRLConfig.from_dict(header["model"])
    except BMRLError as error:
        raise ModelFolderError(f"{path}: expected a model of bmrl {__version__}, got {error}") from error


class _Weights:
    """A file of weights, open as long as this object lives: all is read from the same file, whatever replaces it.

    Attributes:
        path: the file.
        shapes: of the tensors, by name.
        config: what they were saved with; None in the oldest layout. Its thresholds mean nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = safetensors.safe_open(path, framework="pt")
            self.shapes = {name: tuple(self._file.get_slice(name).get_shape()) for name in self._file.keys()}  # noqa: SIM118
            metadata = self._file.metadata() or {}
        except (safetensors.SafetensorError, OSError) as error:
            raise self._damaged(error) from error
        self.config = None
        if BOUND in metadata:
            try:
                fields = parse_json(metadata[BOUND])
                self.config = BMRLConfig.from_dict(fields)
            except BMRLError as error:
                raise ModelFolderError(f"{path}: expected weights of bmrl {__version__}, got {error}") from error

    def read(self, expected: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return checked tensors, floating-point ones in float32, that share nothing with the file."""
        tensors = {}
        for name, wanted in expected.items():
            try:
                tensor = self._file.get_tensor(name)
                check_tensor(name, tensor, wanted)
            except (safetensors.SafetensorError, OSError) as error:
                raise self._damaged(error) from error
            except ModelFolderError as error:
                raise ModelFolderError(f"{self.path}: {error}") from error
            tensors[name] = tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
        return tensors

    def _damaged(self, error: Exception) -> ModelFolderError:
        return ModelFolderError(f"{self.path}: expected safetensors weights, got a damaged file ({_oneline(error)})")


def _weights_of(source: Path, config: BMRLConfig, layout: int) -> _Weights:
    """Return the weights that were saved with ``config``, be it that their saving was interrupted at the last step."""
    files = [source / name for name in (WEIGHTS, PENDING) if (source / name).is_file()]
    if not files:
        raise MissingFileError(f"model: expected {source / WEIGHTS}, got no such file")
    weights = _Weights(files[0])
    for path in files:
        one = weights if path == files[0] else _Weights(path)  # what is pending is looked at only if it is needed
        if one.config is not None and _bound(one.config) == _bound(config):
            return one
    if weights.config is not None:
        field, wanted, got = _difference("", _bound(weights.config), _bound(config))
        raise ModelFolderError(
            f"{source / CONFIG}: {field}: expected {wanted}, with which the weights were saved, got {got}; the file "
            "was changed afterwards, or belongs to another model"
        )
    if layout != UNBOUND_FORMAT:
        raise ModelFolderError(
            f"{weights.path}: expected weights that save_model wrote, got some that do not say their configuration"
        )
    _logger.warning(
        "%s: the weights do not say whether config.json is their own, because an older bmrl saved them; "
        "save_model(load_model(folder), folder) adds it",
        source,
    )
    return weights


def _difference(name: str, own: Any, given: Any) -> tuple[str, str, str]:
    """Return where two unequal configurations differ first, and what stands there."""
    if isinstance(own, dict):
        key = next(key for key in own if own[key] != given[key])
        return _difference(f"{name}.{key}".removeprefix("."), own[key], given[key])
    if isinstance(own, tuple) and len(own) == len(given):
        index = next(index for index, entry in enumerate(own) if entry != given[index])
        return _difference(f"{name}[{index}]", own[index], given[index])
    if isinstance(own, tuple):
        return name, f"{len(own)} entries", str(len(given))
    return name, repr(own), repr(given)


def _blueprint_of(config: BMRLConfig, weights: _Weights) -> BMRL:
    """Return the model of ``config`` without values, once the weights have the shapes that it asks for."""
    blocks = config.visual_blocks + config.parsing * config.parsing_blocks + config.language * config.language_blocks
    if blocks + sum(config.convs_per_stage) > len(weights.shapes):  # each has a tensor of its own
        raise ModelFolderError(
            f"{weights.path}: expected weights of {blocks} blocks and {sum(config.convs_per_stage)} convolutions, as "
            f"config.json says, got {len(weights.shapes)} tensors"
        )
    try:
        model = blueprint(config)
    except RuntimeError as error:  # a tensor of more bytes than PyTorch can count
        raise ModelFolderError(f"{weights.path}: expected the sizes of config.json, got {_oneline(error)}") from error
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    names = sorted(expected.keys() | weights.shapes.keys())
    differing = [name for name in names if expected.get(name) != weights.shapes.get(name)]
    if differing:
        name = differing[0]
        raise ModelFolderError(
            f"{weights.path}: expected {name} {expected.get(name, 'absent')} as config.json says, got "
            f"{weights.shapes.get(name, 'absent')} ({len(differing)} tensors differ)"
        )
    return model


def _oneline(error: Exception) -> str:
    return " ".join(str(error).split())
