"""What of a graph is computed in 8 bits."""

from __future__ import annotations

import onnx
import pytest
import torch

from bmrl.export import export_model
from bmrl.export.writers.onnx import QUANTIZED
from bmrl.models import build_model, presets

SIZES = {"image_size": 32, "embed_dim": 16, "*.channels": (4, 8, 8), "*.convs_per_stage": (1, 1, 2), "*.num_blocks": 1,
         "*.num_heads": 2, "*.mlp_dim": 16, "*.token_patch": 1, "edge": None, "noise": None, "parsing": None,
         "language": None, "statistics": {"hidden_dim": 16}}  # fmt: skip


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """The graph in 8 bits of a model that reads statistics next to the picture."""
    torch.manual_seed(0)
    model = build_model(presets.tiny(num_generators=3, **SIZES))
    images = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
    model.train()(images)  # the statistics are learned
    path = tmp_path_factory.mktemp("int8") / "model.onnx"
    export_model(model.eval(), path, "onnx-int8", images=images, calibration=images)
    return onnx.load(path).graph


def before(graph, node):
    """Return all nodes that one depends on."""
    makers = {name: each for each in graph.node for name in each.output}
    found, waiting = {}, list(node.input)
    while waiting:
        maker = makers.get(waiting.pop())
        if maker is not None and maker.output[0] not in found:
            found[maker.output[0]] = maker
            waiting += maker.input
    return list(found.values())


def test_products_of_statistics_stay_in_float32(graph):
    """256 steps are too few for a sum over a whole picture."""
    products = [node for node in graph.node if node.op_type in ("MatMul", "Gemm")]
    early = [node for node in products if all(one.op_type != "Conv" for one in before(graph, node))]
    dequantized = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    quantized = [node for node in graph.node if node.op_type in QUANTIZED and node.input[0] in dequantized]
    assert len(early) >= 6  # the DCT from both sides, the spectrum, its rings, and the encoder's own layers
    assert {node.op_type for node in quantized} >= {"Conv", "MatMul"}
    assert not {node.name for node in early} & {node.name for node in quantized}
