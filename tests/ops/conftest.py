"""Strategies and fixtures for image operators."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Registration brings in Triton, which is not everywhere.
collect_ignore = (
    []
    if importlib.util.find_spec("triton")
    else ["test_kernel_resources.py", "test_kernels.py", "test_kernels_on_gpu.py", "test_operators.py"]
)

LAYOUTS = {
    "contiguous": lambda images: images.contiguous(),
    "channels_last": lambda images: images.contiguous(memory_format=torch.channels_last),
    "transposed": lambda images: images.mT.contiguous().mT,
    "sliced": lambda images: torch.cat((images, images), dim=-1)[..., : images.shape[-1]],
    "batch_one": lambda images: images[:1],
    "empty": lambda images: images[:0],
}


@pytest.fixture(params=LAYOUTS)
def laid_out(request: pytest.FixtureRequest) -> Tensor:
    """uint8 images (up to 2, 3, 12, 10) in every memory layout."""
    rng = np.random.default_rng(0)
    return LAYOUTS[request.param](torch.from_numpy(rng.integers(0, 256, (2, 3, 12, 10), dtype=np.uint8)))


@pytest.fixture
def assert_package_runs_alone(tmp_path: Path) -> Callable[[torch.nn.Module, Tensor, float], None]:
    """Compile a module of one argument by AOTInductor for 1 to 64 images; compare in a process without this library."""

    def check(module: torch.nn.Module, images: Tensor, tolerance: float) -> None:
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.export.export(module, (images,), dynamic_shapes=({0: batch},))
        package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "views.pt2"))
        torch.save((images, module(images)), tmp_path / "expected.pt")
        script = f"""
            import sys, torch
            images, expected = torch.load({str(tmp_path / "expected.pt")!r})
            run = torch._inductor.aoti_load_package({package!r})
            for batch in (1, len(images)):
                for actual, one in zip(run(images[:batch]), expected, strict=True):
                    torch.testing.assert_close(actual, one[:batch], rtol={tolerance}, atol={tolerance})
            assert not any(name.partition(".")[0] == "bmrl" for name in sys.modules)
        """
        subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, cwd=tmp_path, timeout=240)

    return check
