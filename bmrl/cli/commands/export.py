"""``bmrl export``: a model as a file for use without bmrl, or as a repository for a Triton server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmrl._outputs import check_out_file, check_out_folder, check_utf8
from bmrl.cli.arguments import add_device, add_model, add_out, given, path
from bmrl.cli.command import FAILURE, SUCCESS, Command
from bmrl.cli.output import say
from bmrl.export.formats import ENGINES, FORMATS
from bmrl.export.triton.repository.backends import BACKENDS

if TYPE_CHECKING:
    import argparse

    from bmrl.export import Artifact
    from bmrl.export.verification import Verification
    from bmrl.models import BMRL

__all__ = ["COMMAND"]

_SERVING = (
    "backend",
    "graph_format",
    "engine",
    "version",
    "max_batch_size",
    "preferred_batch_sizes",
    "max_queue_delay",
    "num_threads",
    "instances",
    "ensemble",
    "max_pixels",
    "max_bytes",
)
"""Options of ``--format triton``, as ``write_triton_repository`` calls them; ``graph_format`` is its ``format``."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser, optional=True)
    parser.usage = (
        "%(prog)s [options] MODEL {--format FORMAT | --all} --out PATH\n"
        "       %(prog)s [options] --artifact FILE --format triton --out PATH"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    names = [*FORMATS, "triton"]
    what.add_argument("--format", choices=names, metavar="FORMAT", help=", ".join(names))
    what.add_argument("--all", action="store_true", help="every format, with a table of size, speed and fidelity")
    add_out(parser, "a file; for triton and --all, a folder", metavar="PATH")
    parser.add_argument(
        "--images",
        type=path,
        metavar="DIR",
        help="verify with these, and calibrate int8: a data folder (its test and training splits) or any folder of "
        "images (default: patterns)",
    )
    add_device(parser, "cpu, cuda, cuda:N, or auto: a GPU if the format has a use for one", default="cpu")
    _add_serving_arguments(parser.add_argument_group("with --format triton"))


def _add_serving_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--backend", choices=tuple(BACKENDS))
    group.add_argument("--artifact", type=path, metavar="FILE", help="an exported file, instead of MODEL")
    group.add_argument(
        "--graph-format",
        choices=tuple(FORMATS),
        metavar="FORMAT",
        help="what MODEL is exported as, and the backend runs (default: the backend's)",
    )
    group.add_argument("--engine", choices=ENGINES, help="what runs ONNX in the python backend")
    group.add_argument("--version", type=int, metavar="N", help="the server takes the highest (default: 1)")
    group.add_argument("--max-batch-size", type=int, metavar="N", help="images in one run (default: 64)")
    group.add_argument("--preferred-batch-sizes", type=int, nargs="+", metavar="N", help="batches not to delay")
    group.add_argument("--max-queue-delay", type=float, metavar="S", help="seconds to wait for a batch (default: 0)")
    group.add_argument("--threads", dest="num_threads", type=int, metavar="N", help="CPU threads per run")
    group.add_argument("--instances", type=int, metavar="N", help="copies that run side by side (default: 1)")
    group.add_argument(
        "--ensemble",
        action="store_true",
        default=None,
        help="add bmrl_attribute, which takes the bytes of a JPEG, PNG or WebP file",
    )
    group.add_argument("--max-pixels", type=int, metavar="N", help="of an image for it (default: 50000000)")
    group.add_argument("--max-bytes", type=int, metavar="N", help="of a file for it (default: 33554432)")


def _run(options: argparse.Namespace) -> int:
    _check(options)
    if options.all:
        return _export_all(options)
    if options.format == "triton":
        found = _write_repository(options)
        say(f"wrote {options.out}: {_in_words(found)}")
        return SUCCESS
    from bmrl.export import export_model

    model = _load(options)
    images = _images(options, model, calibrate=FORMATS[options.format].calibrated)
    exported = export_model(model, options.out, options.format, device=options.device, **images)
    say(f"wrote {options.out}: {_in_words(exported.verification)}")
    return SUCCESS


def _in_words(found: Verification) -> str:
    """Return how a file decides next to its model."""
    if found.synthetic:
        return (
            f"answers as the model does to {found.images} patterns; --images DIR compares decisions about real images"
        )
    how = "as the model about all" if not found.decisions_changed else "differently from the model about"
    count = f"{found.decisions_changed} of " if found.decisions_changed else ""
    return (
        f"decides {how} {count}{found.images} images; the most probable class is the same for "
        f"{found.top1_agreement:.1%}, probabilities differ by at most {found.probability_difference:.2g}"
    )


def _check(options: argparse.Namespace) -> None:
    """Check how the options fit together, and the place to write to."""
    serving = given(options, *_SERVING, "artifact")
    if serving and options.format != "triton":
        option = "threads" if "num_threads" in serving else next(iter(serving)).replace("_", "-")
        options.usage_error(f"--{option}: only with --format triton")
    if (options.model is None) == (options.artifact is None):
        options.usage_error("expected either MODEL, or --artifact FILE with --format triton")
    if options.artifact is not None and (options.graph_format or options.images):
        options.usage_error("--graph-format, --images: expected neither with --artifact, which is a verified file")
    if options.all and options.device != "cpu":
        options.usage_error("--device: expected cpu with --all")
    if options.all and options.images is None:
        options.usage_error("--all: expected --images too, to verify and calibrate with")
    check_utf8("out", options.out)
    if options.all or options.format == "triton":
        check_out_folder("out", options.out)
    else:
        check_out_file("out", options.out)


def _export_all(options: argparse.Namespace) -> int:
    """Write every format and say how they compare."""
    from bmrl.export import compare_formats

    model = _load(options)
    comparison = compare_formats(model, options.out, **_images(options, model, calibrate=True))
    say(comparison.to_markdown())
    say(f"wrote {options.out}")
    return FAILURE if any(row.error for row in comparison.rows) else SUCCESS


def _write_repository(options: argparse.Namespace) -> Verification:
    """Write a repository of a model or of an exported file; return how the file in it was verified."""
    from bmrl.export import Artifact, write_triton_repository
    from bmrl.export.standalone.artifact_runtime import DESCRIPTION, read_entries
    from bmrl.export.triton.contract import MODEL_NAME
    from bmrl.export.verification import Verification

    serving = given(options, *_SERVING)
    serving["format"] = serving.pop("graph_format", None)
    source: BMRL | Artifact
    images: dict[str, Any] = {}
    if options.artifact is not None:
        source = Artifact(options.artifact)
    else:
        source = _load(options)
        calibrate = options.graph_format is not None and FORMATS[options.graph_format].calibrated
        images = _images(options, source, calibrate=calibrate)
    write_triton_repository(source, options.out, device=options.device, **images, **serving)
    (entry,) = read_entries(Path(options.out, MODEL_NAME, str(serving.get("version", 1)), DESCRIPTION)).values()
    return Verification(**entry["verification"])


def _load(options: argparse.Namespace) -> BMRL:
    from bmrl.models import load_model

    return load_model(options.model)


def _images(options: argparse.Namespace, model: BMRL, *, calibrate: bool) -> dict[str, Any]:
    """Return the arguments that hold the images to verify and to calibrate with."""
    if options.images is None:
        return {}
    from bmrl.export.images import read_export_images

    read = read_export_images(options.images, model.config.image_size, calibrate=calibrate)
    return {"images": read.test, "calibration": read.calibration}


COMMAND = Command(
    name="export",
    summary="write a model for use without bmrl, and verify it",
    function="export_model",
    add_arguments=_add_arguments,
    run=_run,
    takes={"out": "path", "all": None} | dict.fromkeys(("artifact", *_SERVING)),
)
