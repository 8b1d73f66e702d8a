"""The command ``bmrl``: each subcommand is a thin call of the library."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmrl import __version__
from bmrl.errors import BMRLError, DataError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["main"]

SUCCESS, FAILURE = 0, 1  # argparse exits with 2 on wrong usage

# The names of bmrl.export.FORMATS, whose module needs PyTorch: a command line should answer --help at once.
_FORMATS = (
    "torchscript",
    "torchscript-bf16",
    "torchscript-unfrozen",
    "torchscript-unfrozen-bf16",
    "pt2",
    "pt2-bf16",
    "aoti",
    "aoti-bf16",
    "onnx",
    "onnx-int8",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 success, 1 failure; wrong usage exits with 2."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="bmrl: %(message)s")
    logging.getLogger("bmrl").setLevel(logging.INFO)
    try:
        from bmrl.export._runtime import keep_freed_memory

        keep_freed_memory()
        command: Callable[[argparse.Namespace], int | None] = options.command
        return command(options) or SUCCESS
    except BMRLError as error:
        print(f"bmrl: error: {error}", file=sys.stderr)
        for note in getattr(error, "__notes__", ()):
            print(note, file=sys.stderr)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("bmrl", "torch"):
            raise
        print(f"bmrl: error: {MissingExtraError(error.name, 'train,serve')}", file=sys.stderr)
    except BrokenPipeError:  # the reader of our output, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"bmrl: error: {error.filename or 'file'}: {error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("bmrl: interrupted", file=sys.stderr)
    return FAILURE


def _simulate(options: argparse.Namespace) -> None:
    from bmrl.data.simulated import simulate

    manifest = simulate(
        options.folder,
        seed=options.seed,
        images_per_generator=options.images_per_generator,
        image_size=options.image_size,
    )
    print(f"{len(manifest.rows)} simulated images in {options.folder}; see contact_sheet.png")


def _import_folder(options: argparse.Namespace) -> None:
    from bmrl.data.importers.folder import import_folder

    _, report = import_folder(
        options.source,
        options.out,
        families=options.families,
        unseen=options.unseen,
        seed=options.seed,
        val=options.val,
        test=options.test,
        symlink=options.symlink,
    )
    print(report.summary())
    for path, reason in report.skipped[:20]:
        print(f"skipped {path}: {reason}", file=sys.stderr)
    print(f"wrote {options.out}/manifest.csv and import_report.json")


def _train(options: argparse.Namespace) -> None:
    from bmrl.training import train

    recipe = _given(options, "epochs", "batch_size", "learning_rate", "seed", "precision")
    if options.resume and (recipe or options.set or options.preset):
        options.usage_error("--resume goes on with the settings of the run; leave the other settings out")
    model, more = _split_settings(options.set)
    run = train(
        options.data,
        options.out,
        preset=options.preset or "tiny",
        resume=options.resume,
        recipe_changes=recipe | more,
        model_changes=model,
        device=options.device,
    )
    for path, reason in run.skipped:
        print(f"skipped {path}: {reason}", file=sys.stderr)
    branch = "on" if run.parsing else "off (no parsing maps)"
    print(f"model in {run.folder}; {len(run.skipped)} images skipped; parsing branch {branch}")


def _split_settings(settings: Iterable[tuple[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return changes of the model's configuration and of the recipe; ``objective.NAME`` is part of the latter."""
    from bmrl._checks import _described
    from bmrl._fields import names_of, unknown_name
    from bmrl.errors import ConfigError
    from bmrl.models import BMRLConfig
    from bmrl.training import TrainingConfig

    known = names_of(BMRLConfig, TrainingConfig)
    model: dict[str, Any] = {}
    recipe: dict[str, Any] = {}
    objective: dict[str, Any] = {}
    for name, value in settings:
        if name.startswith("objective."):
            objective[name.removeprefix("objective.")] = value
        elif name in known["TrainingConfig"]:
            recipe[name] = value
        elif name in known["BMRLConfig"]:
            model[name] = value
        else:
            raise unknown_name(name, known)
    if objective:
        whole = recipe.setdefault("objective", {})
        if not isinstance(whole, dict):
            raise ConfigError(f"objective: expected a mapping from names to values, got {_described(whole)}")
        recipe["objective"] = whole | objective
    return model, recipe


def _evaluate(options: argparse.Namespace) -> None:
    from bmrl.evaluation.run import evaluate
    from bmrl.evaluation.table import format_figures

    metrics = evaluate(options.model, options.data, options.out, split=options.split, thresholds=options.thresholds)
    columns = {"model": metrics} | ({"shortcut": metrics["shortcut"]} if metrics["shortcut"] else {})
    print(format_figures(columns))
    for entry in metrics["skipped"]:
        print(f"skipped {entry['path']}: {entry['reason']}", file=sys.stderr)
    print(f"wrote {options.out}/report.html and metrics.json")


def _compare(options: argparse.Namespace) -> None:
    from bmrl.training.comparison import compare, format_comparison

    results = compare(
        options.data,
        options.out,
        preset=options.preset,
        seeds=options.seeds,
        folds=options.folds,
        max_epochs=options.max_epochs,
        contenders=options.contenders,
        device=options.device,
    )
    print(format_comparison(results))


def _attribute(options: argparse.Namespace) -> int:
    from bmrl.evaluation.attributor import Attribution, format_table

    attributions, failures = [], 0
    try:
        for answer in _attributions(options):
            if isinstance(answer, Attribution):
                attributions.append(answer)
            else:
                failures += 1
                print(f"bmrl: error: {answer}", file=sys.stderr)
    finally:  # what was answered before the server died or somebody lost patience
        if options.json:
            print(json.dumps([entry.to_dict() for entry in attributions], indent=2))
        elif attributions:
            print(format_table(attributions))
    return FAILURE if failures else SUCCESS


def _attributions(options: argparse.Namespace) -> Iterator[Any]:
    """Yield an attribution or an error for each image, from the model or from the server."""
    if options.server:
        from bmrl.remote import attribute_remotely, connect

        with connect(options.server) as client:
            yield from attribute_remotely(client, _files(options.inputs), threshold=options.threshold)
    else:
        from bmrl.evaluation.attributor import Attributor

        model, *paths = options.inputs
        if not paths:
            options.usage_error("expected MODEL and at least one PATH (or --server URL)")
        yield from Attributor.load(model, threshold=options.threshold).attribute_each(_files(paths))


def _export(options: argparse.Namespace) -> int:
    from bmrl.export import export, export_all, write_triton_repository
    from bmrl.models import load_model

    serving = _given(options, *_SERVING_OPTIONS)
    if serving and options.format != "triton":
        option = "threads" if "num_threads" in serving else next(iter(serving)).replace("_", "-")
        options.usage_error(f"--{option}: only with --format triton")
    if options.all and options.device != "cpu":
        options.usage_error("--device: expected cpu with --all")
    if options.all and options.images is None:
        options.usage_error("--all: expected --images too, to verify and calibrate with")
    if options.format == "triton" and Path(options.model).is_file():
        if options.artifact or options.images:
            options.usage_error("--artifact, --images: expected neither with a file that is exported and verified")
        write_triton_repository(options.model, options.out, device=options.device, **serving)
        print(f"wrote {options.out}")
        return SUCCESS
    model = load_model(options.model)
    images: dict[str, Any] = {}
    if options.images is not None:
        from bmrl._export_images import read_export_images

        kind = options.artifact if options.format == "triton" else options.format
        calibrate = options.all or "int8" in (kind or "")
        read = read_export_images(options.images, model.config.image_size, calibrate=calibrate)
        images = {"images": read.test, "calibration": read.calibration}
    failed = False
    if options.all:
        from bmrl.export.every_format import format_exports

        rows = export_all(model, options.out, **images)
        print(format_exports(rows))
        failed = any(row["error"] for row in rows)
    elif options.format == "triton":
        serving["format"] = serving.pop("artifact", None)
        write_triton_repository(model, options.out, device=options.device, **images, **serving)
    else:
        export(model, options.out, options.format, device=options.device, **images)
    print(f"wrote {options.out}")
    return FAILURE if failed else SUCCESS


_SERVING_OPTIONS = (
    "backend",
    "artifact",
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


def _serve(options: argparse.Namespace) -> None:
    from bmrl.export import TritonServer, serve

    server = TritonServer(
        options.repository,
        host=options.host,
        http_port=options.http_port,
        grpc_port=options.grpc_port,
        metrics_port=options.metrics_port,
        num_threads=options.threads,
        log_level=options.log_level,
        model_control=options.model_control,
        shared_memory=options.shared_memory,
        startup_timeout=options.startup_timeout,
    )
    serve(server, probe_interval=options.probe_interval)


def _demo(options: argparse.Namespace) -> None:
    from bmrl.demo import run_demo

    run_demo(options.out, seed=options.seed)


def _given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _files(paths: Iterable[str]) -> Iterator[str]:
    """Yield files; a folder stands for the images below it."""
    from bmrl.images import SUFFIXES

    for path in paths:
        if Path(path).is_dir():
            found = sorted(str(file) for file in Path(path).rglob("*") if file.suffix.lower() in SUFFIXES)
            if not found:
                raise DataError(f"{path}: expected images in this folder, got none")
            yield from found
        else:
            yield path


def _setting(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):  # no JSON, or what Python's reader refuses
        pass
    try:
        return name, float(value)  # such as .5, which JSON doesn't know
    except ValueError:
        return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bmrl", description="Attribute face images to the generators that made them (BMRL, arXiv:2504.14129)."
    )
    parser.add_argument("--version", action="version", version=f"bmrl {__version__}")
    parser.add_argument("--verbose", action="store_true", help="also show what the libraries log")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int | None], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        made.set_defaults(command=run)
        return made

    demo = command("demo", _demo, "simulate, train, evaluate, export, serve and attribute, from nothing")
    demo.add_argument("--out", default="demo", help="folder for all results (default: %(default)s)")
    demo.add_argument("--seed", type=int, default=0)

    simulated = command("simulate", _simulate, "draw the simulated data set")
    simulated.add_argument("folder", metavar="DIR")
    simulated.add_argument("--seed", type=int, default=0)
    simulated.add_argument("--images-per-generator", type=int, default=200, help="default: %(default)s")
    simulated.add_argument("--image-size", type=int, default=128, help="pixels (default: %(default)s)")

    imports = command("import", _import_folder, "turn images of your own into a data folder")
    imports.add_argument("kind", choices=["folder"], help="folder: SRC holds one folder a generator")
    imports.add_argument("source", metavar="SRC")
    imports.add_argument("--out", required=True, metavar="DIR", help="new folder for the images and manifest.csv")
    imports.add_argument("--families", metavar="YAML", help="manipulation, architecture, role and groups by generator")
    imports.add_argument("--unseen", nargs="+", default=[], metavar="NAME", help="generators to keep for testing")
    imports.add_argument("--val", type=float, default=0.1, help="share for validation (default: %(default)s)")
    imports.add_argument("--test", type=float, default=0.2, help="share for testing (default: %(default)s)")
    imports.add_argument("--seed", type=int, default=0)
    imports.add_argument("--symlink", action="store_true", help="link to the images instead of copying them")

    training = command("train", _train, "train a model on the seen images of a data folder")
    training.add_argument("--data", required=True, metavar="DIR")
    training.add_argument("--out", required=True, metavar="DIR", help="new folder; becomes the model")
    training.add_argument("--preset", choices=["tiny", "paper"], help="default: tiny")
    training.add_argument("--resume", action="store_true", help="continue the interrupted run in --out")
    training.add_argument("--epochs", type=int)
    training.add_argument("--batch-size", type=int)
    training.add_argument("--learning-rate", type=float)
    training.add_argument("--precision", choices=["auto", "32-true", "bf16-mixed"])
    training.add_argument("--seed", type=int)
    training.add_argument(
        "--set",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a field of the model's configuration or of the recipe, such as edge=false, weight_decay=0.01 or "
        "objective.margin=0.5; may be repeated",
    )
    training.set_defaults(usage_error=training.error)
    _device(training)

    evaluation = command("evaluate", _evaluate, "test a model and write report.html and metrics.json")
    evaluation.add_argument("model", metavar="MODEL")
    evaluation.add_argument("--data", required=True, metavar="DIR")
    evaluation.add_argument("--out", required=True, metavar="DIR")
    evaluation.add_argument("--split", default="test", choices=["train", "val", "test"], help="default: %(default)s")
    evaluation.add_argument("--thresholds", type=float, nargs="+", metavar="T", help="default: the model's")

    comparison = command("compare", _compare, "train BMRL and ResNet-18 on the same data, several seeds each")
    comparison.add_argument("--data", required=True, metavar="DIR")
    comparison.add_argument("--out", required=True, metavar="DIR", help="folder for comparison.json")
    comparison.add_argument("--preset", default="tiny", choices=["tiny", "paper"], help="default: %(default)s")
    comparison.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    comparison.add_argument("--folds", type=int, default=3, help="folds that choose the epochs (default: %(default)s)")
    comparison.add_argument("--max-epochs", type=int, help="longest training tried (default: each recipe's)")
    comparison.add_argument(
        "--contenders", nargs="+", default=["bmrl", "resnet18"], choices=["bmrl", "resnet18"], help="default: both"
    )
    _device(comparison)

    attribution = command("attribute", _attribute, "say which generator made each image, or that none known did")
    attribution.add_argument(
        "inputs",
        nargs="+",
        metavar="PATH",
        help="the model folder (not with --server), then images or folders of images",
    )
    attribution.usage = (
        "%(prog)s [options] MODEL PATH [PATH ...]\n       %(prog)s [options] --server URL PATH [PATH ...]"
    )
    attribution.set_defaults(usage_error=attribution.error)
    attribution.add_argument("--threshold", type=float, help="call images below it unseen (default: the model's first)")
    attribution.add_argument("--json", action="store_true", help="print JSON instead of a table")
    attribution.add_argument(
        "--server",
        metavar="URL",
        help="ask this Triton server instead: HOST:PORT or grpc://HOST:PORT, or http://HOST:PORT",
    )

    _export_options(command("export", _export, "write a model for use without bmrl, and verify it"))

    serving = command("serve", _serve, "serve a repository with a real Triton Inference Server on this machine")
    serving.add_argument("repository", metavar="REPOSITORY", help="what bmrl export --format triton wrote")
    serving.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="IPv4 address to listen on, without a password or encryption; 0.0.0.0 for all (default: %(default)s)",
    )
    serving.add_argument("--http-port", type=int, default=8000, help="default: %(default)s")
    serving.add_argument("--grpc-port", type=int, default=8001, help="default: %(default)s")
    serving.add_argument("--metrics-port", type=int, default=8002, help="default: %(default)s")
    serving.add_argument("--threads", type=int, metavar="N", help="CPU threads a run (default: the repository's)")
    serving.add_argument(
        "--log-level",
        default="warning",
        choices=["error", "warning", "info", "verbose"],
        help="what the server writes to stderr (default: %(default)s)",
    )
    serving.add_argument(
        "--model-control",
        default="none",
        choices=["none", "explicit"],
        help="explicit lets whoever reaches a port load and unload models, and so run code; on a loopback address only "
        "(default: %(default)s)",
    )
    serving.add_argument(
        "--shared-memory",
        action="store_true",
        help="let programs on this machine pass tensors through shared memory, with which they can also end the server",
    )
    serving.add_argument(
        "--startup-timeout",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="how long the models may take to load and to answer (default: %(default)s)",
    )
    serving.add_argument(
        "--probe-interval",
        type=float,
        default=2.0,
        metavar="SECONDS",
        help="time between the inferences that tell whether to restore the model (default: %(default)s)",
    )
    return parser


def _export_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model folder; for triton, an exported file too")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--format", choices=[*_FORMATS, "triton"], metavar="FORMAT", help=", ".join([*_FORMATS, "triton"])
    )
    what.add_argument("--all", action="store_true", help="every format, with a table of size, speed and fidelity")
    parser.add_argument("--out", required=True, metavar="PATH", help="a file; for triton and --all, a folder")
    parser.add_argument(
        "--images",
        metavar="DIR",
        help="verify with these, and calibrate int8: a data folder (its test and training splits) or any folder of "
        "images (default: patterns)",
    )
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="what aoti is compiled for, and served on"
    )
    parser.set_defaults(usage_error=parser.error)
    triton = parser.add_argument_group("with --format triton")
    triton.add_argument("--backend", choices=["python", "pytorch", "torch_aoti", "onnxruntime"])
    triton.add_argument("--artifact", choices=_FORMATS, metavar="FORMAT", help="what the backend runs")
    triton.add_argument("--engine", choices=["onnxruntime", "openvino"], help="what runs ONNX in the python backend")
    triton.add_argument("--version", type=int, metavar="N", help="the server takes the highest (default: 1)")
    triton.add_argument("--max-batch-size", type=int, metavar="N", help="images in one run (default: 64)")
    triton.add_argument("--preferred-batch-sizes", type=int, nargs="+", metavar="N", help="batches not to delay")
    triton.add_argument("--max-queue-delay", type=float, metavar="S", help="seconds to wait for a batch (default: 0)")
    triton.add_argument("--threads", dest="num_threads", type=int, metavar="N", help="CPU threads of one run")
    triton.add_argument("--instances", type=int, metavar="N", help="copies that run side by side (default: 1)")
    triton.add_argument(
        "--ensemble",
        action="store_true",
        default=None,
        help="add bmrl_attribute, which takes the bytes of a JPEG, PNG or WebP file",
    )
    triton.add_argument("--max-pixels", type=int, metavar="N", help="of an image for it (default: 50000000)")
    triton.add_argument("--max-bytes", type=int, metavar="N", help="of a file for it (default: 33554432)")


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "gpu"], help="default: %(default)s")


if __name__ == "__main__":
    raise SystemExit(main())
