"""Numbers that look measured and are not: versions, limits, defaults, formulas, and bounds that tests assert."""

DECODING = "1.4 GiB for pixels and 256 MiB for"

NOT_MEASURED: dict[str, list[str]] = {
    "README.md": ["Python 3.11 to 3.13", "Apache-2.0"],
    "CHANGELOG.md": [DECODING],
    "CONTRIBUTING.md": ["Python 3.11 to 3.13", "pip to 25.1"],
    "SECURITY.md": [
        "(24.10)",
        "fixed in 25.07, and of May 2026, fixed in 26.03",
        "starts from 26.03",
        "by default 89 megapixels and 256 MiB, in the served ensemble 50 megapixels and 32 MiB",
        DECODING,
        "the largest batch (or file for the ensemble) and 8 MiB",
        "grow by less than 8 MiB (with limits of 1 megapixel and 1 MiB)",  # the test that this row names asserts it
        "a message of up to 2 GiB",
    ],
    "docs/data.md": [
        "Files above 256 MiB or 89 megapixels",
        "1.4 GiB of pixels and 256 MiB of files",
        "the cache (4 GiB, some 21,000 at 224 pixels)",  # 3 bytes of color and 1 of parsing per pixel
    ],
    "docs/encoders.md": ["Apache-2.0"],
    "docs/decision.md": [
        "`recommended` asks for 5 %",
        "at least `accept` (95 %) of them",
        "at most `max_error` (2 %) of them",
        "JPEG of quality 75, half size and back, and a crop of 90 %",
        "`typical` (80 %) is a setting",
        "`max_error` of 1 % needs 99 validation pictures, `accept` of 95 % needs 19",
    ],
    "docs/evaluation.md": [
        "a crop of 90 %, applied to the file",
        "An AUROC of 95 % over all images and 50 % here",  # an example
    ],
    "docs/losses.md": [
        "Random unit vectors in many dimensions start about 1.4 apart",  # the square root of 2
        "their own learning rate (50 times the model's is a good start)",
        "from PyTorch 2.14 on",
    ],
    "docs/ops.md": [
        "luma 0.299 R + 0.587 G + 0.114 B",
        "edge strength, 0 to about 4.5",
        "values beyond -0.45..1.45",
        "values that span more than 1.9",
        "by Triton 3.8",
    ],
    "docs/results.md": [
        "Stable Diffusion 2.1",
        "at most 2 % of wrong names",
        "The preset asks for 5 %",
        "that the decision asks for 0.05 and not for 0.02",
        "(`max_error` 0.05, `typical` 0.8)",
        "asking for 2 % leaves nearly all uncertain",
    ],
    "docs/serving.md": [
        "(24.10)",
        "ONNX Runtime 1.18 or newer",
        "26.03 or newer",
        "(or file for the ensemble) and 8 MiB",
        "more than 8 MiB in addition to binary tensors",
        "(120 seconds)",
        "every five seconds a line says",
        "asks for a real inference every two seconds",
        "has not answered for 30 seconds",
        "Each attempt waits twice as long as the one before",
    ],
    "deploy/README.md": ["end a server before 26.03", "messages of up to 2 GiB"],
}
