"""What of a model a folder can hold: its configuration and its tensors, if these two give back the same function."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torch.overrides import TorchFunctionMode

from bmrl._values import described
from bmrl.errors import ModelFolderError
from bmrl.models.bmrl import BMRL
from bmrl.models.building import Blocks, assembled
from bmrl.models.config import BMRLConfig
from bmrl.models.handover import answers_of, blocks_of, place_of

if TYPE_CHECKING:
    from bmrl.models.fitted import FittedDecision

__all__ = ["Restorable", "blueprint", "check_tensor", "restorable", "tensors_of"]

_logger = logging.getLogger(__name__)

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WRAPPERS = (DataParallel, DistributedDataParallel, AveragedModel)


class Restorable(NamedTuple):
    """What of a model its folder holds."""

    config: BMRLConfig
    tensors: dict[str, Tensor]
    """On the CPU, by the names that the configuration gives them."""
    answers: dict[str, list[list[float]]]
    """Of each block that was handed over, to its contract's inputs."""
    decision: FittedDecision | None = None
    """What was fitted after the training."""


def blueprint(config: BMRLConfig, blocks: Blocks) -> BMRL:
    """Return the model of a configuration without values: only constants are not on the meta device.

    Args:
        config: of the model.
        blocks: those that are handed over, which become part of it as they are.
    """
    with torch.device("meta"), _NoStartValues():
        return assembled(config, blocks)


class _NoStartValues(TorchFunctionMode):
    """Leaves normal distributions out: on the meta device, the first one imports PyTorch's compiler, for seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.Tensor.normal_, nn.init.normal_, nn.init.kaiming_normal_):
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def restorable(model: nn.Module) -> Restorable:
    """Return the configuration and the tensors of a model, and what its blocks that were handed over answer.

    What ``torch.compile``, ``DataParallel``, ``DistributedDataParallel`` and ``AveragedModel`` wrap is unwrapped.

    Raises:
        ModelFolderError: configuration and tensors would not give the model back, because a part was replaced, changed
            or tied after it was built, or a tensor holds no finite values; the message names it.
    """
    model = _unwrapped(model)
    if type(model) is not BMRL:
        raise ModelFolderError(f"model: expected a bmrl.models.BMRL, which load_model gives back, got {_kind(model)}")
    if not isinstance(model.config, BMRLConfig):
        raise ModelFolderError(f"model.config: expected a BMRLConfig, got {_kind(model.config)}")
    blocks = blocks_of(model)
    own = tuple(place_of(name) for name in blocks.named)
    expected = blueprint(model.config, blocks)
    parts = _parts(model)
    _check_parts(_parts(expected), parts, own)
    _check_tensors(model, expected, parts, own)
    hooked = [name for name, part in parts.items() if part._forward_hooks or part._forward_pre_hooks]
    if hooked:
        _logger.warning("%s: has forward hooks, which are not saved; what they change is lost", hooked[0])
    return Restorable(model.config, tensors_of(model), answers_of(model), model.decision)


def _unwrapped(model: Any) -> Any:
    """Return what is inside wrappers that change no answer."""
    while isinstance(model, _WRAPPERS) or hasattr(model, "_orig_mod"):
        model = model.module if isinstance(model, _WRAPPERS) else model._orig_mod
    return model


def _parts(model: nn.Module, name: str = "model") -> dict[str, nn.Module]:
    """Return all modules by name, each without its wrapper; a module that is in two places, twice."""
    found = {name.removeprefix("model."): model}
    for child, part in model._modules.items():
        if part is not None:
            found |= _parts(_unwrapped(part), f"{name}.{child}")
    return found


def _within(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def _check_parts(expected: dict[str, nn.Module], parts: dict[str, nn.Module], own: tuple[str, ...]) -> None:
    """Check that the modules are those that the configuration builds, by type and plain attributes, and no others.

    Args:
        expected: modules by name, as the configuration builds them.
        parts: those of the model.
        own: places of blocks that were handed over, which are looked at as wholes.
    """
    for name in (*expected, *parts):
        if _within(name, own):
            continue
        wanted, part = expected.get(name), parts.get(name)
        if _kind(wanted) != _kind(part):
            raise ModelFolderError(
                f"{name}: expected {_kind(wanted)}, which is all that load_model gives back, got {_kind(part)}"
            )
        assert part is not None
        for attribute, value in vars(wanted).items():
            plain = value is None or isinstance(value, bool | int | float | str | tuple)
            if not plain or attribute in ("training", "decision") or attribute.startswith("_"):
                continue
            got = getattr(part, attribute, None)
            if type(got) is not type(value) or got != value:
                raise ModelFolderError(
                    f"{name}.{attribute}: expected {value!r}, as the configuration says, got {described(got)}"
                )
        forward = vars(part).get("forward")
        original = getattr(forward, "_torchdynamo_orig_callable", None)
        if forward is not None and getattr(original, "__func__", None) is not type(part).forward:
            raise ModelFolderError(f"{name}.forward: expected that of {_kind(part)}, got one that was put in its place")
    places: dict[int, str] = {}
    for name, part in parts.items():
        if _within(name, own):
            continue
        first = places.setdefault(id(part), name)
        if first != name:
            raise ModelFolderError(f"{name}: expected its own module, got that of {first}; copy it with deepcopy")


def _kind(part: Any) -> str:
    """Return the full name of an object's type; that of what computes the same in evaluation mode, if it has one."""
    if part is None:
        return "nothing"
    kind = nn.BatchNorm2d if type(part) is nn.SyncBatchNorm else type(part)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def _check_tensors(model: BMRL, expected: BMRL, parts: dict[str, nn.Module], own: tuple[str, ...]) -> None:
    """Check that the tensors of the state dict are those of the configuration; other arguments as ``_check_parts``."""
    saved = {_plain(name): tensor for name, tensor in expected.state_dict().items()}
    tensors = {_plain(name): tensor for name, tensor in model.state_dict().items()}
    places: dict[Any, str] = {}
    for name in (*saved, *tensors):
        if name not in saved or name not in tensors:
            wanted, got = ("a tensor", "none") if name in saved else ("no such tensor", "one")
            raise ModelFolderError(f"{name}: expected {wanted}, as the configuration says, got {got}")
        tensor = tensors[name]
        if type(tensor) is not Tensor or tensor.is_meta or tensor.layout != torch.strided:
            layout = f", {tensor.layout}" if isinstance(tensor, Tensor) else ""
            kind = "one without values, on the meta device" if getattr(tensor, "is_meta", False) else _kind(tensor)
            raise ModelFolderError(f"{name}: expected a tensor that holds all of its values, got {kind}{layout}")
        check_tensor(name, tensor, saved[name])
        if _within(name, own):  # what it ties stays tied: it is filled, not built
            continue
        first = places.setdefault((tensor.device, tensor.data_ptr()), name) if tensor.numel() else name
        if first != name:
            raise ModelFolderError(f"{name}: expected its own values, got those of {first}; clone one of the two")
    for name, constant in expected.named_buffers():
        if name not in saved and not _within(name, own):
            owner, _, buffer = name.rpartition(".")
            value = getattr(parts[owner], buffer)
            if not torch.equal(constant.to(value), value):
                raise ModelFolderError(f"{name}: expected the library's constant, got other values")


def _plain(name: str) -> str:
    """Return the name that a tensor has without what ``torch.compile`` wraps."""
    return name.replace("_orig_mod.", "")


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of the state dict: contiguous, on the CPU, and each with its own memory."""
    tensors: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in model.state_dict().items():
        tensor = _own(tensor.detach())
        if tensor.data_ptr() in places:  # tied within a block that was handed over
            tensor = tensor.clone()
        places.add(tensor.data_ptr())
        tensors[_plain(name)] = tensor
    return tensors


def _own(tensor: Tensor) -> Tensor:
    """Return a contiguous tensor on the CPU that is not part of a larger one, which safetensors would refuse."""
    tensor = tensor.contiguous().cpu()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def check_tensor(name: str, tensor: Tensor, wanted: Tensor) -> None:
    """Check shape, dtype and values of a tensor that a folder holds or is to hold.

    Floating-point values may have any of PyTorch's usual precisions, and must be finite in float32, in which they are
    loaded.
    """
    if tensor.shape != wanted.shape:
        raise ModelFolderError(f"{name}: expected the shape {tuple(wanted.shape)}, got {tuple(tensor.shape)}")
    dtypes = _DTYPES if wanted.is_floating_point() else (wanted.dtype,)
    if tensor.dtype not in dtypes:
        raise ModelFolderError(f"{name}: expected {' or '.join(map(str, dtypes))}, got {tensor.dtype}")
    if tensor.is_floating_point() and not tensor.float().isfinite().all():
        raise ModelFolderError(f"{name}: expected finite values, got NaN or infinity")
