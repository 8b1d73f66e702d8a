"""Blocks that were handed over: where they are in a model, and whether the same ones are handed over again."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bmrl.errors import BMRLError, ModelFolderError
from bmrl.models.building import BLOCKS, Blocks, class_of, custom_blocks
from bmrl.models.contracts import answers, check_contract, contract_of

if TYPE_CHECKING:
    from pathlib import Path

    from bmrl.models.bmrl import BMRL
    from bmrl.models.config import BMRLConfig

__all__ = ["answers_of", "blocks_of", "check_answers", "check_handed_over", "fill", "place_of"]

TOLERANCE = 1e-3
"""By how much an answer may differ, as a share of the largest value: processors round differently."""


def place_of(name: str) -> str:
    """Return where a block is in a :class:`BMRL`, as the names of its tensors begin."""
    if name in ("parsing", "language"):
        return f"{name}_encoder"
    if name in BLOCKS and name != "head":
        return f"visual_encoder.views.{name}.encoder"
    return f"visual_encoder.{name}" if name.startswith("views.") else name


def blocks_of(model: BMRL) -> Blocks:
    """Return the modules at the places where the model's configuration says that some were handed over.

    Raises:
        ModelFolderError: one is missing, or of another class than the configuration says.
    """
    found: dict[str, Any] = {"views": {}}
    classes = custom_blocks(model.config)
    for name, kind in classes.items():
        try:
            module = model.get_submodule(place_of(name))
        except AttributeError as error:
            raise ModelFolderError(f"{place_of(name)}: expected {kind}, got nothing") from error
        module = getattr(module, "_orig_mod", module)
        got = " and ".join(map(class_of, module.children())) if name.startswith("views.") else class_of(module)
        if got != kind:
            hint = f"build_model(config, {_as_argument(name)}) takes another"
            raise ModelFolderError(f"{place_of(name)}: expected {kind}, as the configuration says, got {got}; {hint}")
        if name.startswith("views."):
            found["views"][name.removeprefix("views.")] = module
        else:
            found[name] = module
    return Blocks(**found)


def check_handed_over(source: Path, config: BMRLConfig, blocks: Blocks) -> None:
    """Check that exactly those blocks are handed over that a saved configuration requires, with values.

    Raises:
        ModelFolderError: they are not; the message names each.
    """
    wanted = custom_blocks(config)
    missing = [name for name in wanted if name not in blocks.named]
    more = [name for name in blocks.named if name not in wanted]
    if missing:
        each = ", ".join(f"{name} ({wanted[name] or 'of any class'})" for name in missing)
        raise ModelFolderError(
            f"{', '.join(missing)}: expected the modules that {source} was saved with, {each}, got none; hand them "
            f"over as load_model(folder, {', '.join(map(_as_argument, missing))})"
        )
    if more:
        raise ModelFolderError(
            f"{', '.join(more)}: expected none, since config.json of {source} builds it or has no such view, got "
            f"{', '.join(class_of(blocks.named[name]) for name in more)}"
        )
    for name, block in blocks.named.items():
        if any(tensor.is_meta or is_lazy(tensor) for tensor in (*block.parameters(), *block.buffers())):
            _try(name, block, config)  # what is lazy has no shapes before it is called


def _as_argument(name: str) -> str:
    """Return the argument that hands a block over, such as ``noise=...``."""
    view = name.removeprefix("views.")
    return f"{name}=..." if view == name else f'views={{"{view}": ...}}'


def fill(block: nn.Module, place: str, tensors: dict[str, Tensor]) -> None:
    """Move a block to the CPU in float32, and give it the saved values of its place in the model."""
    block.to("cpu").float()
    with torch.no_grad():
        for name, tensor in block.state_dict().items():
            tensor.copy_(tensors[f"{place}.{name.replace('_orig_mod.', '')}"])


def answers_of(model: BMRL) -> dict[str, list[list[float]]]:
    """Return what each block that was handed over answers to its contract's inputs, on the CPU in float32.

    Raises:
        ModelFolderError: it fails, an answer is not finite, or it answers otherwise when it is asked again.
    """
    found = {}
    for name, block in blocks_of(model).named.items():
        plain = copy.deepcopy(block).to("cpu").float()
        _try(name, plain, model.config)
        inputs = contract_of(name, model.config).inputs
        answer, again = answers(plain, inputs), answers(plain, inputs)
        if not answer.isfinite().all():
            raise ModelFolderError(f"{name}: expected finite answers, got NaN or infinity")
        if not _apart(again, answer) <= TOLERANCE:
            raise ModelFolderError(
                f"{name}: expected the same answers whenever it is asked, got others the second time; it depends on "
                "more than its input and its tensors"
            )
        found[name] = [[float(f"{value:.7g}") for value in row] for row in answer.tolist()]
    return found


def check_answers(source: Path, model: BMRL, kept: dict[str, list[list[float]]]) -> None:
    """Check that each block that was handed over answers as the one that was saved did.

    Raises:
        ModelFolderError: it answers differently, or the file does not say how.
    """
    for name, block in blocks_of(model).named.items():
        _try(name, block, model.config)
        got = answers(block, contract_of(name, model.config).inputs)
        expected = torch.tensor(kept.get(name, []), device="cpu")
        if got.shape != expected.shape:
            raise ModelFolderError(f"{source}: expected weights with answers of {name}, got none of its shape")
        apart = _apart(got, expected)
        if not apart <= TOLERANCE:  # nor is NaN
            raise ModelFolderError(
                f"{name}: expected the answers of the module that was saved in {source}, got others with the same "
                f"weights ({apart:.2g} apart); its class computes something else"
            )


def _try(name: str, block: nn.Module, config: BMRLConfig) -> None:
    try:
        check_contract(name, block, config)
    except BMRLError as error:
        raise ModelFolderError(str(error)) from error


def _apart(got: Tensor, expected: Tensor) -> float:
    """Return the largest difference, as a share of the largest expected value."""
    return (got - expected).abs().max().item() / max(expected.abs().max().item(), 1e-12)
