"""The ensemble ``bmrl_attribute``: an image file's bytes in, its attribution out, all on the server.

It adds three models to a repository::

folder/bmrl_decode/     bytes to pixels, as bmrl.Attributor decodes and resizes; refuses what is not safe to decode
folder/bmrl_decide/     probabilities and score to class index, maximum probability, and the verdict
folder/bmrl_attribute/  the ensemble: decode, then bmrl, then decide

One request holds one image; the server batches the images of waiting requests for ``bmrl``.
"""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

from bmrl._text import shown
from bmrl.errors import RepositoryError
from bmrl.export.standalone import PACKAGE, STANDALONE
from bmrl.export.triton.contract import (
    EMBEDDING,
    ENCODED_IMAGE,
    ENSEMBLE_NAME,
    IMAGES,
    INDEX,
    MODEL_NAME,
    PROBABILITIES,
    PROBABILITY,
    SCORE,
    SEEN,
    VERDICT,
    ServedModel,
    import_tritonclient,
)
from bmrl.export.triton.repository.checks import check_labels
from bmrl.export.triton.repository.config import LABELS_FILE, MOST, read_config, write_config

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DECIDE_NAME", "DECODE_NAME", "decoding_limits", "has_ensemble", "write_ensemble"]

DECODE_NAME = "bmrl_decode"
DECIDE_NAME = "bmrl_decide"
DECIDED_ON = (PROBABILITIES, EMBEDDING, SCORE)
"""What the decision takes of the model, and hands on."""

DECODING_MODULES = (
    *("__init__.py", "_checks.py", "_decoding.py", "_image_bytes.py", "_memory.py", "_regular_files.py", "_text.py"),
    *("_values.py", "errors.py", "images.py"),
)


def write_ensemble(folder: Path, served: ServedModel, *, instances: int, max_pixels: int, max_bytes: int) -> None:
    """Write the three models next to ``bmrl``.

    Args:
        folder: the repository.
        served: what ``bmrl`` serves.
        instances: copies of each that run side by side.
        max_pixels: largest width times height that is decoded.
        max_bytes: largest file that is decoded.
    """
    decode = _model(folder, DECODE_NAME, _decode_config(served, instances, max_pixels, max_bytes))
    shutil.copyfile(STANDALONE / "triton_decode.py", decode / "model.py")
    (decode / "bmrl").mkdir()
    for name in DECODING_MODULES[1:]:
        shutil.copyfile(PACKAGE / name, decode / "bmrl" / name)
    (decode / "bmrl" / DECODING_MODULES[0]).write_text('"""The modules of bmrl that decode an image."""\n', "utf-8")
    decide = _model(folder, DECIDE_NAME, _decide_config(served, instances))
    shutil.copyfile(STANDALONE / "triton_decide.py", decide / "model.py")
    _model(folder, ENSEMBLE_NAME, _ensemble_config(served))
    labels = "".join(f"{label}\n" for label in served.labels)
    (folder / ENSEMBLE_NAME / LABELS_FILE).write_text(labels, encoding="utf-8")


def has_ensemble(folder: Path, served: ServedModel) -> bool:
    """Return whether a repository has the ensemble, after checking that it fits ``served``, the model it is for.

    Raises:
        RepositoryError: a part of it is missing, or its tensors, steps or limits are others.
    """
    if not (folder / ENSEMBLE_NAME).is_dir() or read_config(folder, ENSEMBLE_NAME).platform != "ensemble":
        return False
    for expected in (_decode_config(served, 1, 0, 0), _decide_config(served, 1), _ensemble_config(served)):
        found = read_config(folder, expected.name)
        for field in ("input", "output", "ensemble_scheduling"):
            if getattr(found, field) != getattr(expected, field):
                raise RepositoryError(
                    f"{folder / expected.name}: {field}: expected {_line(getattr(expected, field))}, "
                    f"got {_line(getattr(found, field))}"
                )
    limits = read_config(folder, DECIDE_NAME).parameters["limits"].string_value
    if limits != _limits(served):
        raise RepositoryError(
            f"{folder / DECIDE_NAME}: parameters.limits: expected {_limits(served)}, got {shown(limits)}"
        )
    check_labels(folder / ENSEMBLE_NAME / LABELS_FILE, list(served.labels))
    decoding_limits(folder)
    return True


def decoding_limits(folder: Path) -> dict[str, int]:
    """Return ``max_pixels`` and ``max_bytes`` of a repository's ensemble.

    Raises:
        RepositoryError: one is not an integer from 1 to 2³¹ - 1, or there is no ensemble.
    """
    parameters, limits = read_config(folder, DECODE_NAME).parameters, {}
    for name in ("max_pixels", "max_bytes"):
        text = parameters[name].string_value if name in parameters else "none"
        limits[name] = int(text) if re.fullmatch(r"[0-9]{1,10}", text) else 0
        if not 1 <= limits[name] <= MOST:
            raise RepositoryError(
                f"{folder / DECODE_NAME}: parameters.{name}: expected an integer from 1 to {MOST}, got {shown(text)}"
            )
    return limits


def _line(message: Any) -> str:
    return " ".join(str(message).split())


def _model(folder: Path, name: str, config: Any) -> Path:
    version = folder / name / "1"
    version.mkdir(parents=True)
    write_config(config, version.parent)
    return version


def _tensors(kind: str, **dims: tuple[str, list[int]]) -> list[Any]:
    message = getattr(import_tritonclient("grpc.model_config_pb2"), kind)
    return [message(name=name, data_type=f"TYPE_{dtype}", dims=shape) for name, (dtype, shape) in dims.items()]


def _decode_config(served: ServedModel, instances: int, max_pixels: int, max_bytes: int) -> Any:
    messages = import_tritonclient("grpc.model_config_pb2")
    side = served.image_size
    config = messages.ModelConfig(
        name=DECODE_NAME,
        backend="python",
        input=_tensors("ModelInput", **{ENCODED_IMAGE: ("UINT8", [-1])}),
        output=_tensors("ModelOutput", **{IMAGES: ("UINT8", [1, 3, side, side])}),
        instance_group=[messages.ModelInstanceGroup(kind="KIND_CPU", count=instances)],
    )
    config.parameters["max_pixels"].string_value = str(max_pixels)
    config.parameters["max_bytes"].string_value = str(max_bytes)
    return config


def _decide_config(served: ServedModel, instances: int) -> Any:
    messages = import_tritonclient("grpc.model_config_pb2")
    outputs = _attribution(served)
    inputs = {f"{name}_of_{MODEL_NAME}": outputs[name] for name in DECIDED_ON}
    config = messages.ModelConfig(
        name=DECIDE_NAME,
        backend="python",
        max_batch_size=served.max_batch_size,
        input=_tensors("ModelInput", **inputs),
        output=_tensors("ModelOutput", **outputs),
        instance_group=[messages.ModelInstanceGroup(kind="KIND_CPU", count=instances)],
        dynamic_batching=messages.ModelDynamicBatching(),
    )
    config.parameters["limits"].string_value = _limits(served)
    return config


def _limits(served: ServedModel) -> str:
    return json.dumps(served.limits.to_dict())


def _ensemble_config(served: ServedModel) -> Any:
    messages = import_tritonclient("grpc.model_config_pb2")
    images, *answers = served.tensors
    outputs = {name: (dtype, [1, *shape]) for name, (dtype, shape) in _attribution(served).items()}
    config = messages.ModelConfig(
        name=ENSEMBLE_NAME,
        platform="ensemble",
        input=_tensors("ModelInput", **{ENCODED_IMAGE: ("UINT8", [-1])}),
        output=_tensors("ModelOutput", **outputs),
    )
    for output in config.output:
        if output.name == PROBABILITIES:
            output.label_filename = LABELS_FILE
    within = {name: f"{name}_of_{MODEL_NAME}" for name in DECIDED_ON}
    steps = (
        (DECODE_NAME, {ENCODED_IMAGE: ENCODED_IMAGE}, {IMAGES: "pixels"}),
        (MODEL_NAME, {images: "pixels"}, dict(zip(answers, within.values(), strict=True))),
        (DECIDE_NAME, {name: name for name in within.values()}, {name: name for name in outputs}),
    )
    for name, inputs, results in steps:
        config.ensemble_scheduling.step.add(model_name=name, model_version=-1, input_map=inputs, output_map=results)
    for name, text in served.to_parameters().items():
        config.parameters[name].string_value = text
    return config


def _attribution(served: ServedModel) -> dict[str, tuple[str, list[int]]]:
    """Return type and dims, without the batch, of what the ensemble gives out."""
    return {
        INDEX: ("INT32", [1]),
        PROBABILITY: ("FP32", [1]),
        SEEN: ("BOOL", [1]),
        VERDICT: ("INT32", [1]),
        PROBABILITIES: ("FP32", [len(served.generators)]),
        EMBEDDING: ("FP32", [served.embed_dim]),
        SCORE: ("FP32", [1]),
    }
