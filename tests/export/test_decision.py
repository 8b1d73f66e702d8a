"""A fitted decision goes with the model: into every format, and to a server and its clients."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch import nn

from bmrl.export import FORMATS, TritonClient, TritonServer, export_model, load_artifact, write_triton_repository
from bmrl.export.artifact import read_artifact
from bmrl.inference import Attributor, Limits, attributions_from_probabilities, decider_of, limits_of
from bmrl.inference.scores import SCORES, FittingData
from bmrl.models import CalibrationAnswers, FittedDecision, build_model, load_model, save_model

TOLERANCES = {"fp32": 1e-4, "bf16": 0.1, "int8": 0.3}


def fitted(model, images, name="combined", temperature=1.5):
    """Return a copy of the model with a score fitted to its answers, and limits in the middle of its scores."""
    state = model.state_dict()
    config = model.config.with_changes(
        {"decision.score": name, "decision.accept": 0.7, "decision.typical": 0.4, "decision.max_error": 0.5}
    )
    copied = build_model(config)
    copied.load_state_dict(state)
    rng = torch.Generator().manual_seed(2)
    coarse = torch.randint(0, 256, (200, 3, 4, 4), generator=rng).float()
    images = torch.cat((images, nn.functional.interpolate(coarse, size=images.shape[-2:]).to(torch.uint8)))
    with torch.no_grad():
        output = copied.eval()(images)
    labels = torch.arange(len(images)) % len(config.generators)
    score = SCORES[name].fit(
        FittingData(logits=output.logits / temperature, embeddings=output.embedding, labels=labels)
    )
    probabilities = (output.logits / temperature).softmax(1)
    copied.decision = FittedDecision(
        score=name,
        state=score.state_dict(),
        temperature=temperature,
        answers=CalibrationAnswers(
            versions=("as it is",),
            scores=score(output.logits / temperature, output.embedding)[None],
            probabilities=probabilities.amax(1)[None],
            right=(torch.arange(len(images)) % 3 > 0)[None],
        ),
    )
    return copied


@pytest.fixture(scope="module")
def decided(model, images):
    return fitted(model, images)


@pytest.fixture(scope="module")
def right(decided, images):
    with torch.no_grad():
        output = decided(images)
        probabilities, score = decider_of(decided)(output.logits, output.embedding)
    return probabilities, output.embedding, score[:, None]


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "aoti-bf16"])
def test_every_format_scores(decided, images, right, format, tmp_path):
    entry = FORMATS[format]
    path = tmp_path / f"model{entry.suffix}"
    result = export_model(decided, path, format, images=images, calibration=images)
    assert Limits.from_dict(read_artifact(path)["limits"]) == limits_of(decided)
    *answer, score = load_artifact(path).run(images)
    for got, expected in zip((*answer, score), right, strict=True):
        assert (got.shape, got.dtype) == (expected.shape, torch.float32)
    for got, expected in zip(answer, right[:2], strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=TOLERANCES[entry.precision])
    if entry.precision == "fp32":
        torch.testing.assert_close(score, right[2], rtol=1e-3, atol=5e-3)
    else:  # a distance magnifies what the embeddings differ by: what comes of it is said
        found = result.verification
        assert found.score_difference == pytest.approx((score - right[2]).abs().max().item(), rel=0.5)
        verdicts = [limits_of(decided).verdicts(each[:, 0], best.amax(1)) for each, best in
                    ((score, answer[0]), (right[2], right[0]))]  # fmt: skip
        changed = sum(one != other for one, other in zip(*verdicts, strict=True))
        assert found.decisions_changed >= changed - 1
    if entry.precision == "fp32":
        assert result.verification.decisions_changed == 0
        assert result.verification.score_difference < 1e-2


@pytest.mark.parametrize("name", SCORES)
def test_every_score_can_be_exported(model, images, name, tmp_path):
    """Each by itself to ONNX, which has the fewest operators; the whole model with one of them: see above."""
    decided = fitted(model, images, name)
    decider = decider_of(decided)
    with torch.no_grad():
        output = decided(images)
        probabilities, score = decider(output.logits, output.embedding)
    batch = torch.export.Dim("batch", min=1, max=64)
    given = (output.logits, output.embedding)
    made = torch.onnx.export(decider, given, dynamo=True, dynamic_shapes=({0: batch}, {0: batch}), verbose=False)
    got = made(*(each[:3] for each in given))
    torch.testing.assert_close(got[0], probabilities[:3], rtol=0, atol=1e-5)
    torch.testing.assert_close(got[1], score[:3], rtol=1e-3, atol=5e-3)


@pytest.mark.server
def test_a_server_gives_the_answers_of_the_attributor(decided, images, tmp_path):
    save_model(decided, tmp_path / "model")
    folder = write_triton_repository(load_model(tmp_path / "model"), tmp_path / "served", ensemble=True, num_threads=1)
    faces = []
    for number, image in enumerate(images):
        faces.append(tmp_path / f"{number}.png")
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(faces[-1])
    local = Attributor(decided)(faces)
    assert {answer.verdict for answer in local} == {"seen", "uncertain", "unseen"}
    with TritonServer(folder) as server, TritonClient(server.grpc_url) as client:
        assert client.model.limits == limits_of(decided)
        answer = client.infer(images)
        remote = attributions_from_probabilities(
            answer.probabilities, client.model.generators, client.model.limits, faces, scores=answer.score[:, 0]
        )
        whole = client.attribute([face.read_bytes() for face in faces])
    for one, other, third in zip(local, remote, whole, strict=True):
        assert one.verdict == other.verdict == third.verdict
        assert one.generator == other.generator == third.generator
        assert one.threshold == other.threshold == third.threshold
        assert other.score == pytest.approx(one.score, abs=5e-3)
        assert third.score == pytest.approx(one.score, abs=5e-3)


def test_an_unfitted_score_is_not_exported(model, tmp_path):
    from bmrl.errors import ConfigError

    copied = build_model(model.config.with_changes({"decision.score": "energy"}))
    with pytest.raises(ConfigError, match=r"decision.score: expected a model with 'energy' fitted, got none"):
        export_model(copied, tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []
