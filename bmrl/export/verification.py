"""Whether an exported file answers as the model does: verified in a fresh process that can't import bmrl."""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bmrl._checks import check_dtype, check_shape
from bmrl._files import scratch
from bmrl._results import Result
from bmrl._text import shown
from bmrl.errors import ExportError, ShapeError, VerificationError
from bmrl.export.artifact import MAX_BATCH, load_artifact
from bmrl.export.probe import SCORE_FACTOR, check_probe, probe_image
from bmrl.export.standalone import artifact_runtime
from bmrl.inference.decider import decider_of
from bmrl.inference.decision import decide_checked
from bmrl.inference.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bmrl.inference.decision import Decisions
    from bmrl.models import BMRL

__all__ = ["TOLERANCE", "Reference", "Verification", "check_engine", "check_images", "reference", "verify"]

TOLERANCE = 1e-4
"""How far a float32 export may be from the model; folding batch norms into convolutions moves it by about 1e-6."""

BATCHES = (1, 3, MAX_BATCH)
TIMEOUT = 1800.0


class Reference(NamedTuple):
    """Images, and the answers of the model in float32."""

    images: Tensor
    """``(n, 3, image_size, image_size)`` uint8."""
    probabilities: Tensor
    """``(n, num_generators)`` float32."""
    embedding: Tensor
    """``(n, embed_dim)`` float32."""
    score: Tensor
    """``(n, 1)`` float32."""
    synthetic: bool
    """Whether the images are patterns, because none were given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification(Result):
    """How an exported file answers, compared with its model.

    Args:
        images: how many were compared.
        synthetic: whether they were patterns, because none were given.
        batches: the sizes of the batches in which the file was asked.
        probability_difference: largest absolute difference of a probability.
        embedding_difference: largest absolute difference of a number in an embedding.
        score_difference: largest absolute difference of a score, in the score's unit.
        engine: what ran the file; None is the default.
        top1_agreement: share of the answers with the model's most probable class, 0 .. 1.
        decisions_changed: images for which class or verdict changes, or whether one of the model's thresholds is
            reached.
        probe: the file's ``"probabilities"``, ``"embedding"`` and ``"score"`` for
            :func:`~bmrl.export.probe.probe_image`.
    """

    images: int
    synthetic: bool
    batches: tuple[int, ...]
    probability_difference: float
    embedding_difference: float
    score_difference: float
    engine: str | None
    top1_agreement: float
    decisions_changed: int
    probe: Mapping[str, list[float]]


def reference(model: BMRL, images: Tensor | None = None) -> Reference:
    """Run the model on the images that an export is to be verified with.

    Args:
        model: the model, in any mode, on any device; it is not touched.
        images: ``(n, 3, image_size, image_size)`` uint8, n >= 1; best those of a test split. None takes 16 patterns.

    Returns:
        The images on the CPU, and the model's answers in float32.

    Raises:
        ShapeError, DTypeError: images of another shape or dtype.
    """
    size = model.config.image_size
    synthetic = images is None
    images = _patterns(size) if images is None else check_images("images", images, size)
    eager = copy.deepcopy(model).cpu().float().eval()
    decider = decider_of(eager)
    with torch.inference_mode():
        outputs = [eager(part) for part in images.split(8)]
        logits, embedding = (
            torch.cat([getattr(output, name) for output in outputs]) for name in ("logits", "embedding")
        )
        probabilities, score = decider(logits, embedding)
    return Reference(images, probabilities.clone(), embedding.clone(), score[:, None].clone(), synthetic)


def check_images(name: str, images: Tensor, size: int) -> Tensor:
    """Return images ``(n, 3, size, size)`` uint8, n >= 1, on the CPU.

    Raises:
        ShapeError, DTypeError: they are something else.
    """
    check_shape(name, images, "n channels height width", channels=3, height=size, width=size)
    check_dtype(name, images, torch.uint8)
    if not len(images):
        raise ShapeError(f"{name}: expected at least one image, got shape {tuple(images.shape)}")
    return images.cpu()


def verify(
    path: Path, expected: Reference, description: dict[str, Any], *, exact: bool, engine: str | None = None
) -> Verification:
    """Run an exported file in a fresh process, in batches of 1, 3 and the most it takes, and compare.

    Args:
        path: the file, with its ``artifact.json`` next to it.
        expected: images and the model's answers.
        description: the file's entry there, which has the model's thresholds and limits.
        exact: whether a difference above :data:`TOLERANCE`, or a changed decision, is an error. NaN is, always.
        engine: see :func:`~bmrl.export.load_artifact`.

    Returns:
        The differences found.

    Raises:
        VerificationError: the file does not load or run there, or answers differently from the model.
    """
    worst = dict.fromkeys(artifact_runtime.OUTPUTS, 0.0)
    limits = Limits.from_dict(description["limits"])
    same_class, changed = [], 0
    images = expected.images
    repeated = images.repeat(-(-MAX_BATCH // len(images)), 1, 1, 1)  # fills the largest batch at least once
    answers = _answers(path, torch.cat((repeated, probe_image(images.shape[-1]))), engine)
    for size in BATCHES:
        for name in worst:
            right = getattr(expected, name)
            got = answers[f"{name}.{size}"][: len(right)]
            if got.shape[1:] != right.shape[1:] or got.dtype != right.dtype:
                raise VerificationError(
                    f"{name}: expected {right.dtype} of width {right.shape[1]} from the exported graph, "
                    f"got {got.dtype} of shape {tuple(got.shape)}"
                )
            right = right[: len(got)]
            difference = (got - right).abs().max().item()
            factor = SCORE_FACTOR if name == "score" else 1
            limit = factor * TOLERANCE * max(1.0, right.abs().max().item()) if exact else torch.inf
            if not difference <= limit:  # nor is NaN
                raise VerificationError(
                    f"{name}: expected the exported graph to answer as the model within {limit:g}, got a difference "
                    f"of {difference:g} in batches of {size}"
                )
            worst[name] = max(worst[name], difference)
        here = [answers[f"{name}.{size}"][: len(images)] for name in ("probabilities", "score")]
        there = [getattr(expected, name)[: len(here[0])] for name in ("probabilities", "score")]
        decided = [decide_checked(rows.double(), scores[:, 0].double()) for rows, scores in (here, there)]
        same_class.append(decided[0].labels == decided[1].labels)
        answers_at = [_decisions(each, description["thresholds"], limits) for each in decided]
        changed = max(changed, sum(one != other for one, other in zip(*answers_at, strict=True)))
    if exact and changed:
        raise VerificationError(
            f"probabilities: expected the decisions of the model, got {changed} others of {len(images)}"
        )
    return Verification(
        images=len(images),
        synthetic=expected.synthetic,
        batches=BATCHES,
        probability_difference=worst["probabilities"],
        embedding_difference=worst["embedding"],
        score_difference=worst["score"],
        engine=engine,
        top1_agreement=torch.cat(same_class).double().mean().item(),
        decisions_changed=changed,
        probe={name: answers[f"{name}.{MAX_BATCH}"][-1].tolist() for name in worst},
    )


def check_engine(path: Path, description: dict[str, Any], engine: str) -> None:
    """Check that an engine answers the probe as the one did that verified the file.

    Args:
        path: the file, with its ``artifact.json`` next to it.
        description: the file's entry in it.
        engine: one of the file's format.

    Raises:
        VerificationError: the engine answers differently.
    """
    check_probe("engine", load_artifact(path, engine=engine, probe=False).run, description, engine)


def _answers(path: Path, images: Tensor, engine: str | None) -> dict[str, Tensor]:
    with scratch(path) as folder:
        question, answer = folder / "images.safetensors", folder / "answers.safetensors"
        try:
            save_file({"images": images.contiguous()}, question)
        except (OSError, SafetensorError) as error:
            raise ExportError(f"{question}: expected to be written, got {shown(error)}") from error
        command = [sys.executable, "-I", artifact_runtime.__file__, str(path), str(question), str(answer), "--batches"]
        command += map(str, BATCHES)
        if engine is not None:
            command += ["--engine", engine]
        try:
            ended = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=TIMEOUT
            )
        except subprocess.TimeoutExpired as error:
            raise VerificationError(f"{path.name}: expected answers within {TIMEOUT:g} s, got none") from error
        if ended.returncode:
            reason = shown((ended.stderr.strip() or f"exit code {ended.returncode}").splitlines()[-1])
            failure = VerificationError(f"{path.name}: expected a file that runs in a fresh process, got {reason}")
            failure.add_note(ended.stderr)
            raise failure
        return load_file(answer)


def _decisions(decided: Decisions, thresholds: list[float], limits: Limits) -> list[tuple[Any, ...]]:
    """Return what is decided about each image: by the limits, and by each threshold of the maximum probability."""
    labels, largest = decided.labels.tolist(), decided.probabilities.tolist()
    return [
        (verdict, label if verdict == "seen" else -1, *(label if value >= at else -1 for at in thresholds))
        for verdict, label, value in zip(decided.verdicts(limits), labels, largest, strict=True)
    ]


def _patterns(size: int) -> Tensor:
    """Return 16 images, coarse and fine ones, the same at every call; the global random state is not touched."""
    rng = torch.Generator().manual_seed(0)
    images = []
    for index in range(16):
        side = max(2, size >> (index % 4))
        pattern = torch.randint(0, 256, (1, 3, side, side), generator=rng).float()
        images.append(torch.nn.functional.interpolate(pattern, size=(size, size)))
    return torch.cat(images).to(torch.uint8)
