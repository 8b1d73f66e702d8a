"""The operators as PyTorch sees them: registration, compilation, export, transforms."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
import torch

import bmrl.ops._operators  # noqa: F401 - what a CUDA tensor would import
from bmrl._transforms import is_transformed
from bmrl.ops import ViewExtractor, edges, noise, sobel, srm, view_extraction, views

OPERATIONS = {
    "sobel": lambda images: (torch.ops.bmrl.sobel.default, (images, torch.float32)),
    "sobel_backward": lambda images: (torch.ops.bmrl.sobel_backward.default, (images[:, :1].clone(), images)),
    "srm": lambda images: (torch.ops.bmrl.srm.default, (images, 0.3123, torch.float32)),
    "srm_backward": lambda images: (torch.ops.bmrl.srm_backward.default, (images[:, :3].clone(), images, 0.3123)),
    "views": lambda images: (torch.ops.bmrl.views.default, (images, 5, 0.3123, torch.float32, True)),
    "views without appearance": lambda images: (
        torch.ops.bmrl.views.default,
        (images, 5, 0.3123, torch.float32, False),
    ),
    "views_backward": lambda images: (
        torch.ops.bmrl.views_backward.default,
        (
            images,
            images[:, :1].clone(),
            images[..., :5, :5].clone(),
            images,
            torch.zeros(len(images), dtype=torch.int64),
            5,
            0.3123,
        ),
    ),
}


FORWARD = [name for name in OPERATIONS if "backward" not in name]


@pytest.mark.parametrize("operation", FORWARD)
def test_passes_opcheck(laid_out, operation):
    images = (laid_out.float() / 255).requires_grad_()
    torch.library.opcheck(*OPERATIONS[operation](images))


@pytest.mark.parametrize("operation", FORWARD)
def test_passes_opcheck_from_uint8(operation):
    torch.library.opcheck(*OPERATIONS[operation](torch.randint(0, 256, (2, 3, 12, 10), dtype=torch.uint8)))


@pytest.mark.parametrize("operation", sorted(set(OPERATIONS) - set(FORWARD)))
def test_gradients_pass_opcheck(operation):
    torch.library.opcheck(*OPERATIONS[operation](torch.rand(2, 3, 12, 10)))


@pytest.mark.parametrize("operation", sorted(set(OPERATIONS) - set(FORWARD)))
def test_gradients_of_no_images(operation):
    function, arguments = OPERATIONS[operation](torch.rand(0, 3, 12, 10))
    assert function(*arguments).shape == (0, 3, 12, 10)


@pytest.mark.parametrize(
    "operator",
    [
        lambda images: torch.ops.bmrl.sobel(images, torch.float64),
        lambda images: torch.ops.bmrl.srm(images, 0.3123, torch.float64),
        lambda images: torch.ops.bmrl.views(images, 3, 0.3123, torch.float64, True)[:3],
        lambda images: torch.ops.bmrl.views(images, 3, 0.3123, torch.float64, False)[1:3],
    ],
    ids=["sobel", "srm", "views", "views without appearance"],
)
def test_registered_gradients(operator):
    images = torch.rand(2, 3, 4, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(operator, (images,))
    assert torch.autograd.gradgradcheck(operator, (images,))


@pytest.mark.parametrize("operator", [sobel, srm, lambda images: views(images, patch_size=4)])
def test_compiles_without_a_graph_break(operator):
    images = torch.rand(3, 3, 8, 9, requires_grad=True)
    compiled = torch.compile(operator, fullgraph=True)
    actual, expected = _tuple(compiled(images)), _tuple(operator(images))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    got, wanted = (torch.autograd.grad(sum(p.square().sum() for p in r), images) for r in (actual, expected))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("operator", [sobel, srm, lambda images: views(images, patch_size=4)])
def test_compiles_through_the_registered_operators(operator, monkeypatch):
    # As for CUDA tensors, but with the operators' bodies in ATen.
    for module in (edges, noise, view_extraction):
        monkeypatch.setattr(module, "runs_kernels", lambda images: True)
    images = torch.rand(3, 3, 8, 9, requires_grad=True)
    compiled = torch.compile(operator, fullgraph=True, backend="aot_eager")
    actual, expected = _tuple(compiled(images)), _tuple(operator(images))
    torch.testing.assert_close(actual, expected)
    got, wanted = (torch.autograd.grad(sum(p.square().sum() for p in r), images) for r in (actual, expected))
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_traces_to_aten_alone():
    extractor = ViewExtractor(patch_size=4)
    traced = torch.jit.trace(extractor, torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8))
    kinds = {node.kind() for node in traced.inlined_graph.nodes()}
    assert {kind.split("::")[0] for kind in kinds} <= {"aten", "prim"}


def test_vmap_and_autocast():
    images = torch.rand(4, 2, 3, 8, 8)
    for operator in (sobel, srm, lambda images: torch.ops.bmrl.sobel(images, torch.float32)):
        torch.testing.assert_close(torch.vmap(operator)(images), torch.stack([operator(part) for part in images]))
        with torch.autocast("cpu", torch.bfloat16):
            result = operator(images[0])
        torch.testing.assert_close(result, operator(images[0]))


def test_transforms_are_noticed():
    seen = []

    def operator(images):
        seen.append(is_transformed())
        return images.sum()

    images = torch.rand(2, 3)
    operator(images)
    torch.func.grad(operator)(images)
    torch.vmap(operator)(images)
    torch.func.jvp(operator, (images,), (images,))
    assert seen == [False, True, True, True]


class PlainViews(torch.nn.Module):
    """The views as a plain tuple: a package that holds our named one would need this library to be read."""

    def forward(self, images):
        return tuple(views(images, patch_size=8))


def test_an_aot_inductor_package_runs_without_this_library(assert_package_runs_alone):
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    assert_package_runs_alone(PlainViews(), images, 1e-5)


def test_compiled_graphs_take_from_a_kernel_what_it_stores():
    # As on a GPU, as far as the graph: without the interpreter, for a GPU that Triton is told of.
    script = """
        import torch, triton
        from torch._dynamo.backends.common import aot_autograd
        from triton.backends.compiler import GPUTarget
        from bmrl.ops import edges, noise, sobel, srm, view_extraction, views, _operators

        class Driver:
            get_current_target = lambda self: GPUTarget("cuda", 90, 32)
            get_active_torch_device = lambda self: torch.device("cuda")
            get_current_device = lambda self: 0
            get_current_stream = lambda self, device: 0

        def compile_graph(graph, examples):
            for node in graph.graph.nodes:
                if "tensors_to_clone" in node.kwargs:
                    stored.append(set(node.kwargs["tensors_to_clone"]))
            raise RuntimeError("graph is captured")

        triton.runtime.driver.set_active(Driver())
        for module in (edges, noise, view_extraction, _operators):
            module.runs_kernels = lambda images: True
        for operator, expected in (
            (sobel, [{"edge"}]),
            (srm, [{"noise"}]),
            (lambda images: tuple(views(images)), [{"edge", "appearance", "similarities"}, {"noise", "indices"}]),
        ):
            stored = []
            compiled = torch.compile(operator, backend=aot_autograd(fw_compiler=compile_graph), fullgraph=True)
            try:
                compiled(torch.zeros(4, 3, 224, 224, dtype=torch.uint8))
            except torch._dynamo.exc.BackendCompilerFailed as error:
                assert "graph is captured" in str(error), error
            assert stored == expected, stored
    """
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, env=environment, timeout=240)


def test_works_where_triton_is_not_installed():
    script = """
        import sys
        sys.modules["triton"] = None  # an import of it fails from here on
        import torch
        from bmrl.ops import views
        images = torch.rand(1, 3, 8, 8, requires_grad=True)
        sum(view.sum() for view in views(images, patch_size=4)).backward()
        assert images.grad.isfinite().all()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=120)


def _tuple(value):
    return value if isinstance(value, tuple) else (value,)
