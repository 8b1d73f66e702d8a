"""Whole models against an oracle that shares no code with the library: the formulas in NumPy and float64.

The statistics of residuals, whose own oracle is in tests/ops/test_statistics.py, are taken as given.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from bmrl.models import build_model, presets
from bmrl.ops import residual_statistics

Weights = dict[str, np.ndarray]

KERNELS = [
    np.array([[0, 0, 0, 0, 0], [0, -1, 2, -1, 0], [0, 2, -4, 2, 0], [0, -1, 2, -1, 0], [0, 0, 0, 0, 0]]) / 4,
    np.array([[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]]) / 12,
    np.array([[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 1, -2, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]) / 2,
]
COLORS = [  # RGB of BiSeNet's 19 classes
    *((0, 0, 0), (0, 85, 255), (0, 170, 255), (85, 0, 255), (170, 0, 255), (0, 255, 0), (0, 255, 85), (0, 255, 170)),
    *((85, 255, 0), (170, 255, 0), (255, 0, 0), (255, 0, 85), (255, 0, 170), (255, 85, 0), (255, 170, 0)),
    *((0, 255, 255), (85, 255, 255), (170, 255, 255), (255, 0, 255)),
]


def correlate(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Zero-padded correlation of ``(height, width)`` with a square kernel."""
    half, (height, width) = len(kernel) // 2, image.shape
    padded = np.pad(image, half)
    result = np.zeros_like(image)
    for row in range(len(kernel)):
        for column in range(len(kernel)):
            result += kernel[row, column] * padded[row : row + height, column : column + width]
    return result


def edge_view(image: np.ndarray) -> np.ndarray:
    gray = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    padded = np.pad(gray, 1, mode="reflect")
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    across = correlate(padded, sobel)[1:-1, 1:-1]
    down = correlate(padded, sobel.T)[1:-1, 1:-1]
    return np.sqrt(across**2 + down**2)[None]


def residuals(patch: np.ndarray, truncation: float) -> np.ndarray:
    return np.stack([np.clip(correlate(patch.sum(axis=0), kernel), -truncation, truncation) for kernel in KERNELS])


def all_residuals(image: np.ndarray, patch: int, truncation: float) -> list[np.ndarray]:
    tops, lefts = (range(0, length - patch + 1, patch) for length in image.shape[1:])
    return [residuals(image[:, y : y + patch, x : x + patch], truncation) for y in tops for x in lefts]


def noise_view(image: np.ndarray, patch: int, truncation: float) -> np.ndarray:
    levels = np.rint(255 * image).astype(int)
    gray = (299 * levels[0] + 587 * levels[1] + 114 * levels[2]) // 1000
    best, chosen = math.inf, (0, 0)
    for top in range(0, gray.shape[0] - patch + 1, patch):
        for left in range(0, gray.shape[1] - patch + 1, patch):
            cut = gray[top : top + patch, left : left + patch]
            homogeneity = np.mean(1 / (1 + (cut[:, 1:] - cut[:, :-1]) ** 2))
            if homogeneity < best:
                best, chosen = homogeneity, (top, left)
    top, left = chosen
    return residuals(image[:, top : top + patch, left : left + patch], truncation)


def linear(values: np.ndarray, w: Weights, name: str) -> np.ndarray:
    return values @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def layer_norm(values: np.ndarray, w: Weights, name: str) -> np.ndarray:
    centered = values - values.mean(axis=-1, keepdims=True)
    scaled = centered / np.sqrt((centered**2).mean(axis=-1, keepdims=True) + 1e-5)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def gelu(values: np.ndarray) -> np.ndarray:
    return values * (1 + np.vectorize(math.erf)(values / math.sqrt(2))) / 2


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int, *, causal: bool = False) -> np.ndarray:
    width = q.shape[-1] // heads
    result = np.zeros_like(q)
    for head in range(heads):
        span = slice(head * width, (head + 1) * width)
        for row in range(len(q)):
            last = row + 1 if causal else len(k)
            scores = k[:last, span] @ q[row, span] / math.sqrt(width)
            shares = np.exp(scores - scores.max())
            result[row, span] = shares / shares.sum() @ v[:last, span]
    return result


def block(tokens: np.ndarray, w: Weights, name: str, heads: int, *, causal: bool) -> np.ndarray:
    q, k, v = np.split(linear(layer_norm(tokens, w, f"{name}.attention_norm"), w, f"{name}.attention.qkv"), 3, axis=-1)
    tokens = tokens + linear(attend(q, k, v, heads, causal=causal), w, f"{name}.attention.out")
    hidden = gelu(linear(layer_norm(tokens, w, f"{name}.mlp_norm"), w, f"{name}.mlp.0"))
    return tokens + linear(hidden, w, f"{name}.mlp.3")


def backbone(view: np.ndarray, w: Weights, name: str, config: dict[str, Any]) -> np.ndarray:
    layer = 0
    for stage, (width, convolutions) in enumerate(zip(config["channels"], config["convs_per_stage"], strict=True)):
        for _ in range(convolutions):
            kernels = w[f"{name}.{layer}.weight"]
            assert len(kernels) == width
            view = np.stack(
                [sum(correlate(view[i], kernel[i]) for i in range(len(view))) for kernel in kernels]  # type: ignore[misc]
            )
            norm = f"{name}.{layer + 1}"
            mean, variance = w[f"{norm}.running_mean"], w[f"{norm}.running_var"]
            scale = w[f"{norm}.weight"] / np.sqrt(variance + 1e-5)
            view = (view - mean[:, None, None]) * scale[:, None, None] + w[f"{norm}.bias"][:, None, None]
            view = np.maximum(view, 0)
            layer += 3
        if config["final_pool"] or stage < len(config["channels"]) - 1:
            channels, height, width = view.shape
            view = view.reshape(channels, height // 2, 2, width // 2, 2).max(axis=(2, 4))
            layer += 1
    return view


def image_encoder(view: np.ndarray, w: Weights, name: str, config: dict[str, Any]) -> np.ndarray:
    features = backbone(view, w, f"{name}.backbone.layers", config)
    if config["token_patch"] == "all":
        tokens = [np.concatenate([channel.ravel() for channel in features])]
    else:
        tokens = [features[:, row, column] for row in range(features.shape[1]) for column in range(features.shape[2])]
    sequence = np.stack(
        [w[f"{name}.transformer.class_token"], *(linear(token, w, f"{name}.projection") for token in tokens)]
    )
    sequence = sequence + w[f"{name}.transformer.position_embedding"]
    for index in range(config["num_blocks"]):
        sequence = block(sequence, w, f"{name}.transformer.blocks.{index}", config["num_heads"], causal=False)
    return layer_norm(sequence[0], w, f"{name}.transformer.norm")


def statistics_encoder(image: np.ndarray, w: Weights, name: str) -> np.ndarray:
    numbers = residual_statistics(torch.from_numpy(image[None]))[0].double().numpy()
    scaled = (numbers - w[f"{name}.mean"]) / (np.sqrt(w[f"{name}.variance"]) + 1e-4)
    return linear(gelu(linear(scaled.clip(-6, 6), w, f"{name}.hidden")), w, f"{name}.projection")


def visual_encoder(image: np.ndarray, w: Weights, config: dict[str, Any]) -> np.ndarray:
    name = "visual_encoder"
    tokens = []
    if config["appearance"]:
        tokens.append(image_encoder(image, w, f"{name}.views.appearance.encoder", config["appearance"]))
    if config["edge"]:
        tokens.append(image_encoder(edge_view(image), w, f"{name}.views.edge.encoder", config["edge"]))
    if config["noise"]:
        of_patches = {"richest": lambda *given: [noise_view(*given)], "all": all_residuals}[config["noise"]["patches"]]
        shown = of_patches(image, config["noise"]["patch_size"], config["noise"]["truncation"])
        part = f"{name}.views.noise.encoder"
        tokens.append(np.mean([image_encoder(view, w, part, config["noise"]["encoder"]) for view in shown], axis=0))
    if config["statistics"]:
        tokens.append(statistics_encoder(image, w, f"{name}.views.statistics.encoder"))
    if config["fusion"]["kind"] == "sum":
        return sum(tokens[1:], start=tokens[0])
    if config["fusion"]["kind"] == "concat":
        normed = [layer_norm(token, w, f"{name}.joint.norms.{index}") for index, token in enumerate(tokens)]
        return linear(np.concatenate(normed), w, f"{name}.joint.projection")
    stacked = np.stack(tokens)
    wq, wk, wv = np.split(w[f"{name}.attention.in_proj_weight"], 3)
    bq, bk, bv = np.split(w[f"{name}.attention.in_proj_bias"], 3)
    heads = config["fusion"]["num_heads"]
    fused = attend(stacked[:1] @ wq.T + bq, stacked @ wk.T + bk, stacked @ wv.T + bv, heads)
    return tokens[0] + linear(fused, w, f"{name}.attention.out_proj")[0]


def parsing_encoder(parsing: np.ndarray, w: Weights, config: dict[str, Any]) -> np.ndarray:
    colored = np.array(COLORS)[parsing].transpose(2, 0, 1) / 255
    return image_encoder(colored, w, "parsing_encoder", config["parsing"])


def language_encoder(tokens: np.ndarray, w: Weights, config: dict[str, Any]) -> np.ndarray:
    name, config = "language_encoder", config["language"]
    sequence = w[f"{name}.word_embedding.weight"][tokens.ravel()] + w[f"{name}.position_embedding"]
    for index in range(config["num_blocks"]):
        sequence = block(sequence, w, f"{name}.blocks.{index}", config["num_heads"], causal=True)
    level = 0 if config["readout"] == "first_level" else len(tokens) - 1
    end = list(tokens[level]).index(tokens[level].max())
    return layer_norm(sequence[level * tokens.shape[1] + end], w, f"{name}.norm")


def answer(
    image: np.ndarray, parsing: np.ndarray, tokens: np.ndarray, w: Weights, config: dict[str, Any]
) -> dict[str, np.ndarray]:
    """All that a model says of one image, by the names of BMRLOutput."""
    embedding = visual_encoder(image, w, config)
    if config["head"]["normalize_embedding"]:
        embedding = embedding / np.sqrt((embedding**2).sum())
    logits = linear(layer_norm(embedding, w, "head.0") if config["head"]["norm"] else embedding, w, "head.2")
    shares = np.exp(logits - logits.max())
    result = {"logits": logits, "probabilities": shares / shares.sum(), "embedding": embedding}
    if config["parsing"]:
        result["parsing"] = parsing_encoder(parsing, w, config)
    if config["language"]:
        result["language"] = language_encoder(tokens, w, config)
        result["predicted_language"] = linear(embedding, w, "predictor")
    return result


SMALL: dict[str, Any] = {
    "image_size": 16,
    "noise.patch_size": 8,
    "noise.truncation": 0.3,
    "embed_dim": 8,
    "*.channels": (3, 4),
    "*.convs_per_stage": (2, 1),
    "*.num_blocks": 2,
    "parsing.num_blocks": 1,
    "*.num_heads": 2,
    "*.mlp_dim": 12,
    "language.vocab_size": 20,
    "language.context_length": 5,
    "language.num_levels": 3,
}

CASES: dict[str, dict[str, Any]] = {
    "a token per position": {},
    "one token": {"*.token_patch": "all"},
    "cross-attention": {"fusion.kind": "cross_attention", "*.num_heads": 4},
    "first level": {"language.readout": "first_level", "language.num_blocks": 1, "parsing.num_blocks": 2},
    "raw embedding": {"head.normalize_embedding": False, "*.mlp_dim": 5, "*.num_blocks": 1, "language.num_blocks": 2},
    "no norm before the head": {"head.norm": False, "*.num_heads": 1},
    "whole image as patch": {"noise.patch_size": 16, "noise.truncation": 0.04, "edge": None},
    "noise alone": {"appearance": None, "edge": None, "parsing": None},
    "edge alone": {"appearance": None, "noise": None},
    "edge and noise": {"appearance": None, "language": None, "*.dropout": 0.5},
    "appearance alone": {"edge": None, "noise": None, "parsing": None, "language": None, "*.channels": (5, 2)},
    "two in cross-attention": {"noise": None, "fusion.kind": "cross_attention", "*.convs_per_stage": (1, 2)},
    "all patches, side by side": {"noise.patches": "all", "fusion.kind": "concat", "noise.truncation": 0.1},
    "statistics": {"statistics": {"hidden_dim": 6}, "image_size": 32, "edge": None, "parsing": None, "language": None},
    "three stages": {"*.channels": (2, 3, 4), "*.convs_per_stage": (1, 1, 2), "noise.patch_size": 8},
    "encoders of different sizes": {
        "edge.channels": (2,), "edge.convs_per_stage": (3,), "noise.encoder.num_blocks": 3, "appearance.mlp_dim": 7,
        "noise.encoder.final_pool": True, "parsing.token_patch": "all",
    },
}  # fmt: skip


def drawn(config, seed):
    """Images whose patches differ, parsing maps, and prompts whose end-of-text token stands anywhere."""
    rng = np.random.default_rng(seed)
    size = config.image_size
    length, levels = (5, 3) if config.language is None else (config.language.context_length, config.language.num_levels)
    contrast = np.linspace(0.2, 1, size)[:, None] * np.linspace(1, 0.3, size)
    images = np.floor(rng.random((2, 3, size, size)) * contrast * 256).clip(0, 255)
    parsing = rng.integers(0, 19, (2, size, size))
    tokens = np.zeros((2, levels, length), dtype=np.int64)
    for row in tokens.reshape(-1, length):
        words = rng.integers(1, length - 1)
        row[: words + 2] = [18, *rng.integers(1, 18, words), 19]
    return images, parsing, tokens


@pytest.mark.parametrize("case", CASES)
def test_equals_the_formulas(case):
    torch.manual_seed(7)
    config = presets.tiny(num_generators=3, **SMALL).with_changes(CASES[case])
    model = build_model(config).double().eval()
    for name, tensor in model.state_dict().items():  # also what starts at 0 or 1
        if tensor.is_floating_point():
            tensor.copy_(
                torch.rand_like(tensor) + 0.5
                if name.endswith(("running_var", "variance"))
                else 0.4 * torch.randn_like(tensor)
            )
    images, parsing, tokens = drawn(config, seed=3)
    with torch.inference_mode():
        output = model(torch.from_numpy(images / 255), torch.from_numpy(parsing), torch.from_numpy(tokens))
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    for row in range(len(images)):
        expected = answer(images[row] / 255, parsing[row], tokens[row], weights, config.to_dict())
        given = {name: value[row].numpy() for name, value in output._asdict().items() if value is not None}
        assert given.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(given[name], value, rtol=1e-9, atol=1e-9, err_msg=name)


def test_bytes_and_floats_give_the_same_answer():
    torch.manual_seed(7)
    config = presets.tiny(num_generators=3, **SMALL)
    model = build_model(config).eval()
    images = torch.from_numpy(drawn(config, seed=4)[0])
    with torch.inference_mode():
        torch.testing.assert_close(model(images.byte()).logits, model((images / 255).float()).logits)
