"""What each block of a model takes and returns, and the trial that a module handed over must pass."""

from __future__ import annotations

import contextlib
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from bmrl._text import shown
from bmrl.errors import BMRLError, ConfigError, DTypeError, ShapeError
from bmrl.models.views import Pixels, Residuals, View, dtype_of
from bmrl.ops import ResidualStatistics, Sobel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bmrl.models.config import BMRLConfig

__all__ = ["Contract", "answers", "check_contract", "contract_of", "inner_dtype"]


class Contract(NamedTuple):
    """A batch of two inputs of a block, and the width of what it returns for each."""

    inputs: Tensor
    width: int

    def described(self) -> str:
        """Return it in words, such as ``a module that maps (batch, 3, 112, 112) to (batch, 512)``."""
        sizes = ", ".join(map(str, self.inputs.shape[1:]))
        return f"a module that maps (batch, {sizes}) to (batch, {self.width})"


def contract_of(name: str, config: BMRLConfig) -> Contract:
    """Return the contract of a block.

    Args:
        name: ``appearance``, ``edge``, ``noise``, ``views.NAME``, ``parsing``, ``language`` or ``head``.
        config: of the model, with the block on.
    """
    size, dtype = config.image_size, torch.get_default_dtype()
    # Whole numbers that no addition rounds, so that the inputs are the same on every machine.
    pattern = torch.arange(2 * 3 * size * size, device="cpu")
    if name == "language":
        assert config.language is not None
        shape = (2, config.language.num_levels, config.language.context_length)
        words = torch.arange(2 * shape[1] * shape[2], device="cpu").reshape(shape)
        return Contract(words % config.language.vocab_size, config.embed_dim)
    if name == "parsing":
        return Contract((pattern[: 2 * size * size] // 7 % 19).to(torch.uint8).reshape(2, size, size), config.embed_dim)
    if name == "head":
        embeddings = (pattern.new_ones(2 * config.embed_dim).cumsum(0) * 37 % 101 - 50).reshape(2, -1).to(dtype)
        return Contract(nn.functional.normalize(embeddings, dim=-1), config.num_generators)
    images = (pattern * pattern // 11 % 256).to(torch.float32).reshape(2, 3, size, size) / 255
    operators: dict[str, nn.Module] = {"appearance": Pixels(), "edge": Sobel(), "statistics": ResidualStatistics()}
    if name == "noise":
        assert config.noise is not None
        assert config.noise.patch_size is not None
        operators["noise"] = Residuals(config.noise.patch_size, config.noise.truncation)
    return Contract(operators[name](images) if name in operators else images, config.embed_dim)


def check_contract(name: str, module: nn.Module, config: BMRLConfig) -> None:
    """Try a block with a batch of two and one of one, and leave it as it was.

    Raises:
        ShapeError: what it returns has another shape.
        DTypeError: what it returns is not a tensor, or has another dtype than the module.
        ConfigError: it fails, or holds no values; the message names the block.
    """
    if any(tensor.is_meta for tensor in chain(module.parameters(), module.buffers())):
        raise ConfigError(f"{name}: expected a module with values, got one on the meta device")
    contract = contract_of(name, config)
    for batch in (2, 1):
        wanted = f"{name}: expected {contract.described()}"
        try:
            answer = answers(module, contract.inputs[:batch])
        except Exception as error:  # any error of the user's module
            reason = str(error) if isinstance(error, BMRLError) else f"{type(error).__name__}: {error}"
            raise ConfigError(f"{wanted}, got {shown(reason)}") from error
        if not isinstance(answer, Tensor):
            raise DTypeError(f"{wanted}, got a {type(answer).__name__}")
        if answer.shape != (batch, contract.width):
            raise ShapeError(f"{wanted}, got {tuple(answer.shape)}")
        dtype = inner_dtype(module) or torch.get_default_dtype()
        if answer.dtype != dtype:
            raise DTypeError(f"{wanted} in {dtype}, got {answer.dtype}")


def answers(module: nn.Module, inputs: Tensor) -> Tensor:
    """Return what a module answers in evaluation mode, without gradients and without traces of having been asked.

    Args:
        module: on any device, in any dtype.
        inputs: on any device; floating point is converted to the module's dtype.
    """
    place = next(chain(module.parameters(), module.buffers()), None)
    device = inputs.device if place is None else place.device
    values = inputs.to(device)
    if inputs.is_floating_point() and not isinstance(module, View):
        values = values.to(dtype_of(module) or torch.get_default_dtype())
    with _untouched(module, device), torch.no_grad(), torch.autocast(device.type, enabled=False):
        answer: Tensor = module.eval()(values)
    return answer


def inner_dtype(module: nn.Module) -> torch.dtype | None:
    """Return the floating-point dtype that a block computes in, a view's encoder; None if it holds no such values."""
    return dtype_of(module.encoder) if isinstance(module, View) else dtype_of(module)


@contextlib.contextmanager
def _untouched(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Put modes, buffers and the states of random numbers back."""
    modes = [(part, part.training) for part in module.modules()]
    kept = [
        (part._buffers, name, buffer, buffer.detach().clone())
        for part in module.modules()
        for name, buffer in part._buffers.items()
        if buffer is not None
    ]
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            torch.default_generator.manual_seed(0)  # what draws random numbers answers the same next time
            yield
    finally:
        for part, training in modes:
            part.training = training
        with torch.no_grad():
            for buffers, name, buffer, values in kept:
                buffers[name] = buffer.copy_(values)  # a module may have put another tensor in its place
