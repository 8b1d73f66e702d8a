"""Claims about the image operators and their kernels."""

from __future__ import annotations

from tests.docs.claims.claim import Claim, ratio
from tests.docs.results import eager, encoder, exported, operator, read


def operator_rows():
    names = {"plain": "plain closed form", "OpenCV, scikit-image": "OpenCV and scikit-image"}
    for name in ("sobel", "srm", "selector", "views"):
        providers = [row["provider"] for row in read("operators_cpu")["measurements"] if row["operator"] == name]
        for provider in dict.fromkeys(providers):
            if provider != ("scikit-image" if name == "selector" else "conv2d"):
                images, *times = operator(name, provider)
                first = name if provider == "bmrl" else ""
                yield f"| {first} | {names.get(provider, provider)} | {images:.0f} | {ratio(*times)} |".replace(
                    "|  |", "| |"
                )


def operators():
    page = "benchmarks/README.md"
    for row in operator_rows():
        yield Claim(page, row)
    faster = [operator(name, "numba")[0] / operator(name, "bmrl")[0] for name in ("sobel", "srm", "views")]
    yield Claim(
        page,
        "Loops in numba are {:.1f} times as fast as our Sobel, {:.1f} times as fast as our SRM and {:.1f} times as "
        "fast as our `views`".format(*faster),
    )
    opencv = operator("sobel", "OpenCV")[0] / operator("sobel", "bmrl")[0]
    yield Claim(page, f"OpenCV's Sobel is {opencv:.1f} times as fast as ours")
    views, visual = 8 / operator("views", "bmrl")[0], encoder("MPVE", "eager")["median_s"]
    network = 8 / exported("onnx-int8", engine="openvino", kept=True)[0]
    yield Claim(page, f"the views of 8 images take {1000 * views:.1f} ms")
    yield Claim(page, f"encoder at 224 px takes {visual:.2f} s for them with freed memory kept")
    yield Claim(
        page,
        f"the whole network {8 / eager(kept=False):.1f} s in a process as it comes and {network:.2f} s in its fastest "
        "int8 form",
    )
    yield Claim(page, f"at most {100 * views / visual:.1f} % of an attribution, {100 * views / network:.1f} % in int8")
    assert operator("views", "bmrl")[1] > 2.5
    yield Claim(page, "`views` at 2.5 times conv2d and the selector at 20 times scikit-image are met")
    assert operator("selector", "bmrl")[1] > 20
    yield Claim(page, "the compiled selector at 100 times is not")
    assert operator("selector", "bmrl compiled")[1] < 100


def kernels():
    """The kernels compiled for three architectures, none with spills: words that hold no number."""
    found = read("kernel_resources")
    assert {row["architecture"] for row in found["kernels"]} == {"sm_80", "sm_90", "sm_100"}
    assert not any(row["spill_instructions"] for row in found["kernels"])
    version = ".".join(found["triton"].split(".")[:2])
    yield Claim(
        "docs/ops.md",
        f"All shipped specializations compile for sm_80, sm_90 and sm_100 without spills, by Triton {version}",
    )
