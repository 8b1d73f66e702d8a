"""A model on disk: a folder with ``config.json`` and ``model.safetensors``, never a pickle.

A decision that was fitted after the training lies next to them, in ``decision.safetensors``.

The weights carry the configuration that they were trained with. What ``config.json`` says must agree, in everything
but the decision, which may be edited: a network does not depend on it. Blocks that were handed over are named there,
and must be handed over again: no class is ever imported by name.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

from bmrl._files import locked, new_file, write_text
from bmrl._json import read_json
from bmrl._text import one_line
from bmrl._values import check_path, described
from bmrl._version import __version__
from bmrl.errors import BMRLError, ConfigError, MissingFileError, ModelFolderError
from bmrl.models import decision_file, weights
from bmrl.models._restorable import Restorable, blueprint, restorable, tensors_of
from bmrl.models.building import Blocks, with_custom
from bmrl.models.config import BMRLConfig
from bmrl.models.handover import answers_of, check_answers, check_handed_over, fill, place_of
from bmrl.models.weights import Weights, bound, difference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import nn

    from bmrl.models.bmrl import BMRL
    from bmrl.models.fitted import FittedDecision
    from bmrl.models.views import View

__all__ = ["CONFIG", "DECISION", "WEIGHTS", "check_restorable", "encoded_weights", "load_model", "save_model"]

FORMAT = 3
"""Version of the folder's layout; raised when an older library could not read it."""

CONFIG, WEIGHTS, DECISION = "config.json", "model.safetensors", "decision.safetensors"
PENDING = ".model.safetensors.pending"
"""Weights that are whole, and wait for their ``config.json``: see :func:`save_model`."""
PENDING_DECISION = ".decision.safetensors.pending"
"""The same of a fitted decision."""


def save_model(model: nn.Module, folder: str | os.PathLike[str]) -> Path:
    """Write a model as ``config.json`` and ``model.safetensors``, and its fitted decision as ``decision.safetensors``.

    The files change together: whenever the process is killed, the folder loads as the model that it held before or
    as this one. Other files of the folder stay as they are.

    Args:
        model: a BMRL on any device, in float16, bfloat16, float32 or float64, which is kept in the file;
            :func:`load_model` loads all of them in float32. What ``torch.compile``, ``DataParallel``,
            ``DistributedDataParallel`` and ``AveragedModel`` wrap is saved without the wrapper. Of blocks that were
            handed over to :func:`build_model`, the tensors and what they answer to a fixed input are saved.
        folder: made if missing.

    Returns:
        The folder.

    Raises:
        ModelFolderError: :func:`load_model` could not give the model back, such as one whose parts were replaced
            afterwards, quantized, sharded or tied, or whose values are not finite; the message names the part. Or
            ``folder`` is a file, or one of the files in it is a folder.
        DTypeError, RangeError: ``folder`` is not a path.
    """
    target = check_path("folder", folder)
    saved = restorable(model)
    header = {"format": FORMAT, "bmrl_version": __version__, "weights": "", "model": saved.config.to_dict()}
    try:
        target.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ModelFolderError(f"folder: expected a folder or a new path, got a file at {error.filename}") from error
    for name in (CONFIG, WEIGHTS, PENDING, DECISION, PENDING_DECISION):
        if (target / name).is_dir():
            raise ModelFolderError(f"folder: expected a file or none at {target / name}, got a folder")
    with locked(target):
        written = (PENDING, PENDING_DECISION, CONFIG)
        for stale in (*(path for name in written for path in target.glob(f".{name}.*")), *target.glob(".saving-*")):
            if stale.is_dir():  # of a process that was killed: no other one holds the lock
                shutil.rmtree(stale, ignore_errors=True)
        _write_tensors(target / PENDING, lambda path: weights.write(saved, path))
        header["weights"] = owner = decision_file.digest(target / PENDING)
        decision = saved.decision
        if decision is None:
            (target / PENDING_DECISION).unlink(missing_ok=True)
        else:
            _write_tensors(target / PENDING_DECISION, lambda path: decision_file.write(decision, owner, path))
        write_text(target / CONFIG, json.dumps(header, indent=2) + "\n")  # from here on, what is pending is loaded
        os.replace(target / PENDING, target / WEIGHTS)
        if decision is None:
            (target / DECISION).unlink(missing_ok=True)
        else:
            os.replace(target / PENDING_DECISION, target / DECISION)
    return target


def _write_tensors(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` write a file that appears whole, and that others may read as far as the umask lets them."""
    with new_file(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)  # safetensors lets only the owner read, a server may run as another user


def check_restorable(model: nn.Module) -> None:
    """Check that :func:`save_model` can save a model; raises ModelFolderError as that does."""
    restorable(model)


def encoded_weights(model: BMRL) -> bytes:
    """Return the bytes of the ``model.safetensors`` of a model, whether or not it could be loaded again."""
    return weights.encoded(Restorable(model.config, tensors_of(model), answers_of(model)))


def load_model(
    folder: str | os.PathLike[str],
    *,
    appearance: nn.Module | None = None,
    edge: nn.Module | None = None,
    noise: nn.Module | None = None,
    statistics: nn.Module | None = None,
    views: Mapping[str, View] | None = None,
    parsing: nn.Module | None = None,
    language: nn.Module | None = None,
    head: nn.Module | None = None,
) -> BMRL:
    """Return the model of a folder, in evaluation mode, on the CPU in float32.

    No size of the configuration is built before the weights are known to have it.

    Args:
        folder: what :func:`save_model` wrote. The ``decision`` in its ``config.json`` may have been edited.
        appearance: the block that was handed over to :func:`build_model` in this place, with any weights; it becomes
            part of the model, moves to the CPU in float32 and gets the saved weights. Those that were handed over then,
            and no others, are wanted.
        edge: as ``appearance``.
        noise: as ``appearance``.
        statistics: as ``appearance``.
        views: as ``appearance``, by name.
        parsing: as ``appearance``.
        language: as ``appearance``.
        head: as ``appearance``.

    Raises:
        MissingFileError: the folder or one of the two files that a model needs does not exist.
        ModelFolderError: another version's layout, a damaged file, a configuration that is not the one that the
            weights were saved with, or weights that do not fit it or are not finite. Or a block is missing, one too
            many, has other tensors, or answers differently from the one that was saved; the message names each.
        DTypeError, RangeError: ``folder`` is not a path, or a block is not a module.
    """
    source = check_path("folder", folder)
    blocks = Blocks(appearance, edge, noise, statistics, views, parsing, language, head)
    if not source.is_dir():
        raise MissingFileError(f"model: expected a folder with config.json and model.safetensors, got {source}")
    config, owner = _read_config(source / CONFIG)
    saved = _weights_of(source, config, owner)
    check_handed_over(source, config, blocks)
    model = _blueprint_of(with_custom(config, blocks), saved, blocks)  # a class may have moved since
    state = {name.replace("_orig_mod.", ""): tensor for name, tensor in model.state_dict().items()}
    tensors = saved.read(state)
    for name, block in blocks.named.items():
        fill(block, place_of(name), tensors)
    own = tuple(f"{place_of(name)}." for name in blocks.named)
    built = {name: tensor for name, tensor in tensors.items() if not name.startswith(own)}
    model.load_state_dict(built, strict=False, assign=True)  # all names and shapes were compared
    check_answers(source, model, saved.answers)
    model.decision = _decision_of(source, config, saved)
    return model.eval()


def _read_config(path: Path) -> tuple[BMRLConfig, str | None]:
    """Return the configuration, and the digest of the weights that it was written with, if it says so."""
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
    if isinstance(layout, bool) or layout != FORMAT:
        raise ModelFolderError(
            f"{path}: expected format {FORMAT} (bmrl {__version__}), got format {described(layout)} written by "
            f"bmrl {described(header.get('bmrl_version', 'unknown'))}"
        )
    try:
        return BMRLConfig.from_dict(header["model"]), header.get("weights")
    except BMRLError as error:
        raise ModelFolderError(f"{path}: expected a model of bmrl {__version__}, got {error}") from error


def _weights_of(source: Path, config: BMRLConfig, owner: str | None) -> Weights:
    """Return the weights that were saved with ``config``, also where their saving was interrupted at the last step."""
    files = [source / name for name in (WEIGHTS, PENDING) if (source / name).is_file()]
    if not files:
        raise MissingFileError(f"model: expected {source / WEIGHTS}, got no such file")
    if len(files) > 1:  # a save was interrupted: two models may differ in their weights alone
        files.sort(key=lambda path: decision_file.digest(path) != owner)
    first = Weights(files[0])
    for path in files:
        one = first if path == files[0] else Weights(path)  # what is pending is looked at only if it is needed
        if one.bound == bound(config):
            return one
    if first.bound is None:
        raise ModelFolderError(
            f"{first.path}: expected weights that save_model wrote, got some that do not say their configuration"
        )
    field, wanted, got = difference("", first.bound, bound(config))
    raise ModelFolderError(
        f"{source / CONFIG}: {field}: expected {wanted}, with which the weights were saved, got {got}; the file "
        "was changed afterwards, or belongs to another model"
    )


def _decision_of(source: Path, config: BMRLConfig, saved: Weights) -> FittedDecision | None:
    """Return the decision that was fitted with these weights, if one is there and ``config`` asks for one."""
    if config.decision.score is None:
        return None
    paths = [source / name for name in (PENDING_DECISION, DECISION) if (source / name).is_file()]
    if not paths:
        return None
    owner = decision_file.digest(saved.path)
    found = [one.fitted for one in map(decision_file.read, paths) if one.weights == owner]
    if not found:
        raise ModelFolderError(
            f"{source / DECISION}: expected a decision that was fitted with {saved.path.name}, got one of other "
            "weights; fit it again with bmrl calibrate"
        )
    return next((fitted for fitted in found if fitted.score == config.decision.score), found[0])


def _blueprint_of(config: BMRLConfig, saved: Weights, blocks: Blocks) -> BMRL:
    """Return the model of ``config`` without values, once the weights have the shapes that it asks for."""
    if config.num_layers > len(saved.shapes):  # each has its own tensor
        raise ModelFolderError(
            f"{saved.path}: expected weights of {config.num_layers} layers, as config.json says, got "
            f"{len(saved.shapes)} tensors"
        )
    try:
        model = blueprint(config, blocks)
    except RuntimeError as error:  # a tensor of more bytes than PyTorch can count
        raise ModelFolderError(f"{saved.path}: expected the sizes of config.json, got {one_line(error)}") from error
    expected = {name.replace("_orig_mod.", ""): tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    names = sorted(expected.keys() | saved.shapes.keys())
    differing = [name for name in names if expected.get(name) != saved.shapes.get(name)]
    if differing:
        name = differing[0]
        block = next((block for block in blocks.named if name.startswith(f"{place_of(block)}.")), None)
        wanted = "as config.json says" if block is None else f"as {block} has it"
        raise ModelFolderError(
            f"{saved.path}: expected {name} {expected.get(name, 'absent')} {wanted}, got "
            f"{saved.shapes.get(name, 'absent')} ({len(differing)} tensors differ)"
        )
    return model
