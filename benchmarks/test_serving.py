"""A real Triton server asked by 64 clients at once, compared with the same file run in this process, on this CPU.

python -m pytest benchmarks/test_serving.py [--out FOLDER]
"""

from __future__ import annotations

import asyncio
import statistics
import time

import pytest
import torch

from benchmarks.harness import write_results
from bmrl.export import FORMATS, AsyncTritonClient, TritonServer, export_model, load_artifact, write_triton_repository
from bmrl.export.standalone.artifact_runtime import keep_freed_memory
from bmrl.export.triton.server.readiness import count_answers
from bmrl.models import build_model, presets

_CLIENTS, _SECONDS, _ROUNDS = 64, 20.0, 3
_BATCHES = (8, 32, 64)
_CASES = [("tiny", "torchscript"), ("paper", "torchscript"), ("paper", "onnx-int8")]


@pytest.fixture(scope="module")
def record(request):
    """The rows of this module, written at its end."""
    rows = []
    yield rows
    write_results(request.config.getoption("--out"), "serving", "cpu", rows, _table)


def _table(rows, environment):
    """The measurements as a Markdown page."""
    lines = [
        f"{environment['device']}, {environment['threads']} threads, torch {environment['torch']}. Images per second: "
        f"{_CLIENTS} clients that send one image at a time, and the same file in one process in the best of batches "
        f"{', '.join(map(str, _BATCHES))}; the median of {_ROUNDS} rounds of both, with the range of the ratio.",
        "",
        "| preset | format | served | in process | ratio | mean batch | latency, s: median | 99 % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio = "{:.2f} ({:.2f}-{:.2f})".format(*(row["ratio"][key] for key in ("median", "low", "high")))
        cells = [row["preset"], row["format"], f"{row['served']:.3g}", f"{row['in_process']:.3g}", ratio]
        cells += [f"{row['mean_batch']:.1f}", f"{row['latency_median_s']:.2g}", f"{row['latency_99_s']:.2g}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


async def _ask(url, images, expected):
    """Return the latencies of all requests that were answered within the time; each answer is checked."""
    latencies = []
    end = time.perf_counter() + _SECONDS

    async def ask(client, index):
        while True:
            begin = time.perf_counter()
            answer = await client.infer(images[index])
            assert abs(answer.probabilities - expected[index]).max() < 1e-3
            if time.perf_counter() > end:
                return
            latencies.append(time.perf_counter() - begin)

    async with AsyncTritonClient(url, timeout=120) as client:
        await asyncio.gather(*(ask(client, number % len(images)) for number in range(_CLIENTS)))
    return latencies


def _in_process(run, images):
    """Return images per second."""
    rates = []
    for batch in _BATCHES:
        some = images.repeat(-(-batch // len(images)), 1, 1, 1)[:batch]
        run(some)
        begin, rounds = time.perf_counter(), 0
        while time.perf_counter() - begin < _SECONDS / len(_BATCHES) or not rounds:
            run(some)
            rounds += 1
        rates.append(batch * rounds / (time.perf_counter() - begin))
    return max(rates)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("preset", "format"), _CASES, ids=["-".join(case) for case in _CASES])
def test_serving(request, record, tmp_path, preset, format):
    if request.config.getoption("--on") == "cuda":
        pytest.skip("the local server has no GPU backend")
    keep_freed_memory()  # as the served model does
    torch.manual_seed(0)
    model = build_model(getattr(presets, preset)(num_generators=10)).eval()
    size = model.config.image_size
    images = torch.randint(0, 256, (8, 3, size, size), dtype=torch.uint8)
    path = tmp_path / f"model{FORMATS[format].suffix}"
    artifact = load_artifact(export_model(model, path, format, images=images, calibration=images).path)
    run = artifact.run
    expected = run(images)[0].numpy()
    repository = write_triton_repository(artifact, tmp_path / "models")
    served, alone, latencies = [], [], []
    with TritonServer(repository, num_threads=torch.get_num_threads()) as server:
        before, answered = count_answers(server.grpc_url, 10), 0
        for _ in range(_ROUNDS):
            found = asyncio.run(_ask(server.grpc_url, images.numpy(), expected))
            served.append(len(found) / _SECONDS)
            latencies += found
            alone.append(_in_process(run, images))
        answered = count_answers(server.grpc_url, 10) - before
        executions = _executions(server.grpc_url)
    ratios = sorted(one / other for one, other in zip(served, alone, strict=True))
    record.append(
        {
            "preset": preset,
            "format": format,
            "served": statistics.median(served),
            "in_process": statistics.median(alone),
            "ratio": {"median": statistics.median(ratios), "low": ratios[0], "high": ratios[-1]},
            "mean_batch": answered / executions,
            "latency_median_s": statistics.median(latencies),
            "latency_99_s": statistics.quantiles(latencies, n=100)[-1],
        }
    )


def _executions(url):
    import tritonclient.grpc

    with tritonclient.grpc.InferenceServerClient(url) as connection:
        (model,) = connection.get_inference_statistics("bmrl").model_stats
    return model.execution_count
