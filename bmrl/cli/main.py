"""The command ``bmrl``: each subcommand is a thin call of the library."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import shlex
import signal
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmrl._extras import missing_extra
from bmrl._outputs import check_out_file, check_out_folder, check_utf8
from bmrl._version import __version__
from bmrl.cli.arguments import CommandParser, Parser, device, path
from bmrl.cli.signals import stopping_signals
from bmrl.cli.terminal import LineFormatter, complain, fill_standard_streams, mute, progress_bar, say, write
from bmrl.errors import BMRLError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["main"]

SUCCESS, FAILURE = 0, 1  # argparse exits with 2 on wrong usage

_EPILOG = """\
exit codes: 0 all was done, 1 something failed or was not answered, 2 wrong usage, 128 + N stopped by signal N.
A command that fails says so on one line of stderr that begins with "bmrl: error: ".
"""

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
    """Run one command and return its exit code.

    0: all was done. 1: something failed or was not answered; stderr says what. 128 + n: stopped by signal n. Wrong
    usage exits with 2.
    """
    fill_standard_streams()
    options = argparse.Namespace(command=None)
    try:
        with stopping_signals(), warnings.catch_warnings():
            return _run(arguments, options)
    except KeyboardInterrupt as stop:
        signum = getattr(stop, "signum", signal.SIGINT)
        complain(f"bmrl: stopped by {signal.Signals(signum).name}{_after_a_stop(options)}")
        return 128 + signum


def _run(arguments: Sequence[str] | None, options: argparse.Namespace) -> int:
    """Run one command; everything that a user may meet becomes one line, and what is left a traceback: a bug."""
    try:
        if sys.stdout is None:
            complain("bmrl: error: stdout: expected an open output, got a closed one")
            return FAILURE
        with contextlib.suppress(AttributeError):  # a stand-in for stdout
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        try:
            _parser().parse_args(arguments, options)
        finally:
            write("")  # of --help, whose writer passes over errors
        os.getcwd()  # PyTorch's libraries would end the process where it was removed
        _quiet(verbose=options.verbose)
        from bmrl.export.standalone.artifact_runtime import keep_freed_memory

        keep_freed_memory()
        command: Callable[[argparse.Namespace], int | None] = options.command
        return command(options) or SUCCESS
    except BMRLError as error:
        complain(f"bmrl: error: {error}", *getattr(error, "__notes__", ()))
    except ModuleNotFoundError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        complain(f"bmrl: error: {missing}")
    except BrokenPipeError:  # the reader of our output, such as head, has had enough
        mute(1)
    except OSError as error:
        complain(f"bmrl: error: {_of_the_system(error)}")
        if error.filename == "stdout":
            mute(1)
    except (UnicodeError, RecursionError) as error:  # names and nested data of a user
        complain(f"bmrl: error: {error}")
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        complain(f"bmrl: error: memory: expected enough for this, got: {str(error).strip() or 'no more'}")
    return FAILURE


def _quiet(*, verbose: bool) -> None:
    """Show what bmrl logs, and of what the libraries log and warn of, only what concerns the user."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("bmrl: %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])
    logging.getLogger("bmrl").setLevel(logging.INFO)
    if not verbose:
        warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd files, whose names they don't tell


def _of_the_system(error: OSError) -> str:
    if error.filename is None:
        try:
            os.getcwd()
        except FileNotFoundError:
            return "current folder: expected an existing one, got one that was removed"
        return error.strerror or str(error)
    return f"{os.fsdecode(error.filename)}: {error.strerror or error}"


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out; PyTorch says so in a RuntimeError."""
    return isinstance(error, MemoryError) or any(
        words in str(error) for words in ("out of memory", "not enough memory", "can't allocate memory")
    )


def _after_a_stop(options: argparse.Namespace) -> str:
    """Say what a command that was stopped has left, and how to go on."""
    if options.command is _train and Path(options.out, "training.json").is_file():
        again = ["bmrl", "train", "--data", options.data, "--out", options.out, "--resume"]
        return f"; go on with: {shlex.join(again)}"
    if options.command is _compare and Path(options.out, "comparison.json").is_file():
        return f"; {options.out}/comparison.json holds the methods that were finished"
    if options.command is _attribute:
        return "; the images after the last answer are not attributed"
    if options.command in (_train, _evaluate, _compare):
        return f"; nothing was written to {options.out}"
    return "" if options.command in (None, _serve) else "; run the same command again to begin anew"


def _simulate(options: argparse.Namespace) -> None:
    check_out_folder("folder", options.folder)
    from bmrl.data.simulated import simulate

    manifest = simulate(
        options.folder,
        seed=options.seed,
        images_per_generator=options.images_per_generator,
        image_size=options.image_size,
    )
    say(f"{len(manifest.rows)} simulated images in {options.folder}; see contact_sheet.png")


def _import_folder(options: argparse.Namespace) -> None:
    check_out_folder("out", options.out)
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
    say(report.summary())
    for name, reason in report.skipped[:20]:
        complain(f"skipped {name}: {reason}")
    say(f"wrote {options.out}/manifest.csv and import_report.json")


def _train(options: argparse.Namespace) -> None:
    check_out_folder("out", options.out)
    from bmrl.training import train

    recipe = _given(options, "epochs", "batch_size", "learning_rate", "seed", "precision")
    if options.resume and (recipe or options.set or options.preset):
        options.usage_error("--resume goes on with the settings of the run; leave the other settings out")
    names = [*recipe, *(name for name, _ in options.set)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        options.usage_error(f"{twice}: expected one value, got {names.count(twice)} (--set and the options count)")
    model, more = _split_settings(options.set)
    run = train(
        options.data,
        options.out,
        preset=options.preset or "tiny",
        resume=options.resume,
        recipe_changes=recipe | more,
        model_changes=model,
        device=_accelerator(options.device),
    )
    for name, reason in run.skipped:
        complain(f"skipped {name}: {reason}")
    branch = "on" if run.parsing else "off (no parsing maps)"
    say(f"model in {run.folder}; {len(run.skipped)} images skipped; parsing branch {branch}")


def _split_settings(settings: Iterable[tuple[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return changes of the model's configuration and of the recipe; ``objective.NAME`` is part of the latter."""
    from bmrl._checks import described
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
            raise ConfigError(f"objective: expected a mapping from names to values, got {described(whole)}")
        recipe["objective"] = whole | objective
    return model, recipe


def _accelerator(name: str) -> str:
    """Return the word of Lightning, which trains, for a device of PyTorch."""
    return "gpu" if name == "cuda" else name


def _evaluate(options: argparse.Namespace) -> None:
    from bmrl.evaluation import evaluate, format_metrics

    evaluation = evaluate(
        options.model,
        options.data,
        options.out,
        split=options.split,
        thresholds=options.thresholds,
        batch_size=options.batch_size,
        device=options.device,
        progress=progress_bar("images"),
    )
    columns = {"model": evaluation} | ({"shortcut": evaluation.shortcut} if evaluation.shortcut else {})
    say(format_metrics(columns))
    for entry in evaluation.skipped:
        complain(f"skipped {entry.row.path}: {entry.reason}")
    say(f"wrote {options.out}/report.html and metrics.json")


def _compare(options: argparse.Namespace) -> None:
    check_out_folder("out", options.out)
    from bmrl.evaluation import compare, format_comparison

    comparison = compare(
        options.data,
        options.out,
        preset=options.preset,
        seeds=options.seeds,
        folds=options.folds,
        max_epochs=options.max_epochs,
        methods=options.methods,
        device=_accelerator(options.device),
    )
    say(format_comparison(comparison))


def _attribute(options: argparse.Namespace) -> int:
    model, paths = (None, options.inputs) if options.server else (options.inputs[0], options.inputs[1:])
    if not paths or model == "":
        options.usage_error("expected MODEL and at least one PATH (or --server URL)")
    if options.server and (options.batch_size is not None or options.device != "auto"):
        options.usage_error("--batch-size, --device: expected neither with --server, which has its own")
    from bmrl.cli.attributing import attribute

    failures = attribute(
        paths,
        model=model,
        server=options.server,
        threshold=options.threshold,
        batch_size=32 if options.batch_size is None else options.batch_size,
        device=options.device,
        form=options.format,
    )
    return FAILURE if failures else SUCCESS


def _export(options: argparse.Namespace) -> int:
    serving = _given(options, *_SERVING_OPTIONS)
    if serving and options.format != "triton":
        option = "threads" if "num_threads" in serving else next(iter(serving)).replace("_", "-")
        options.usage_error(f"--{option}: only with --format triton")
    if options.all and options.device != "cpu":
        options.usage_error("--device: expected cpu with --all")
    if options.all and options.images is None:
        options.usage_error("--all: expected --images too, to verify and calibrate with")
    check_utf8("out", options.out)
    if options.all or options.format == "triton":
        check_out_folder("out", options.out)
    else:
        check_out_file("out", options.out)
    from bmrl.export import export, export_all, write_triton_repository
    from bmrl.models import load_model

    if options.format == "triton" and Path(options.model).is_file():
        if options.artifact or options.images:
            options.usage_error("--artifact, --images: expected neither with a file that is exported and verified")
        write_triton_repository(options.model, options.out, device=options.device, **serving)
        say(f"wrote {options.out}")
        return SUCCESS
    model = load_model(options.model)
    images: dict[str, Any] = {}
    if options.images is not None:
        from bmrl.export.images import read_export_images

        kind = options.artifact if options.format == "triton" else options.format
        calibrate = options.all or "int8" in (kind or "")
        read = read_export_images(options.images, model.config.image_size, calibrate=calibrate)
        images = {"images": read.test, "calibration": read.calibration}
    failed = False
    if options.all:
        from bmrl.export.comparison import format_exports

        rows = export_all(model, options.out, **images)
        say(format_exports(rows))
        failed = any(row["error"] for row in rows)
    elif options.format == "triton":
        serving["format"] = serving.pop("artifact", None)
        write_triton_repository(model, options.out, device=options.device, **images, **serving)
    else:
        export(model, options.out, options.format, device=options.device, **images)
    say(f"wrote {options.out}")
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
    from bmrl._checks import check_positive
    from bmrl.export import TritonServer, serve

    check_positive("probe_interval", options.probe_interval)
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
    check_out_folder("out", options.out)
    from bmrl.cli.demo import run_demo

    run_demo(options.out, seed=options.seed)


def _given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


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


def _parser() -> Parser:
    parser = Parser(
        prog="bmrl",
        description="Attribute face images to the generators that made them (BMRL, arXiv:2504.14129).",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"bmrl {__version__}")
    verbose = "also show what the libraries log"
    parser.add_argument("--verbose", action="store_true", help=verbose)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=CommandParser)

    def command(name: str, run: Callable[[argparse.Namespace], int | None], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        made.set_defaults(command=run, usage_error=made.error)
        made.add_argument("--verbose", action="store_true", default=argparse.SUPPRESS, help=verbose)
        return made

    demo = command("demo", _demo, "simulate, train, evaluate, export, serve and attribute, from nothing")
    demo.add_argument("--out", type=path, default="demo", help="folder for all results (default: %(default)s)")
    demo.add_argument("--seed", type=int, default=0)

    simulated = command("simulate", _simulate, "draw the simulated data set")
    simulated.add_argument("folder", type=path, metavar="DIR")
    simulated.add_argument("--seed", type=int, default=0)
    simulated.add_argument("--images-per-generator", type=int, default=200, help="default: %(default)s")
    simulated.add_argument("--image-size", type=int, default=128, help="pixels (default: %(default)s)")

    imports = command("import", _import_folder, "turn images of your own into a data folder")
    imports.add_argument("kind", choices=["folder"], help="folder: SRC holds one folder a generator")
    imports.add_argument("source", type=path, metavar="SRC")
    imports.add_argument(
        "--out", type=path, required=True, metavar="DIR", help="new folder for the images and manifest.csv"
    )
    imports.add_argument(
        "--families", type=path, metavar="YAML", help="manipulation, architecture, role and groups by generator"
    )
    imports.add_argument("--unseen", nargs="+", default=[], metavar="NAME", help="generators to keep for testing")
    imports.add_argument("--val", type=float, default=0.1, help="share for validation (default: %(default)s)")
    imports.add_argument("--test", type=float, default=0.2, help="share for testing (default: %(default)s)")
    imports.add_argument("--seed", type=int, default=0)
    imports.add_argument("--symlink", action="store_true", help="link to the images instead of copying them")

    training = command("train", _train, "train a model on the seen images of a data folder")
    training.add_argument("--data", type=path, required=True, metavar="DIR")
    training.add_argument("--out", type=path, required=True, metavar="DIR", help="new folder; becomes the model")
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
    _trainer(training)

    evaluation = command("evaluate", _evaluate, "test a model and write report.html and metrics.json")
    evaluation.add_argument("model", type=path, metavar="MODEL")
    evaluation.add_argument("--data", type=path, required=True, metavar="DIR")
    evaluation.add_argument("--out", type=path, required=True, metavar="DIR")
    evaluation.add_argument("--split", default="test", choices=["train", "val", "test"], help="default: %(default)s")
    evaluation.add_argument("--thresholds", type=float, nargs="+", metavar="T", help="default: the model's")
    evaluation.add_argument("--batch-size", type=int, default=32, metavar="N", help="images a step (default: 32)")
    _device(evaluation)

    comparison = command("compare", _compare, "train BMRL and ResNet-18 on the same data, several seeds each")
    comparison.add_argument("--data", type=path, required=True, metavar="DIR")
    comparison.add_argument("--out", type=path, required=True, metavar="DIR", help="folder for comparison.json")
    comparison.add_argument("--preset", default="tiny", choices=["tiny", "paper"], help="default: %(default)s")
    comparison.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    comparison.add_argument("--folds", type=int, default=3, help="folds that choose the epochs (default: %(default)s)")
    comparison.add_argument("--max-epochs", type=int, help="longest training tried (default: each recipe's)")
    comparison.add_argument(
        "--methods", nargs="+", default=["bmrl", "resnet18"], choices=["bmrl", "resnet18"], help="default: both"
    )
    _trainer(comparison)

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
    attribution.add_argument("--threshold", type=float, help="call images below it unseen (default: the model's first)")
    attribution.add_argument("--batch-size", type=int, metavar="N", help="images a step (default: 32)")
    form = attribution.add_mutually_exclusive_group()
    form.add_argument(
        "--format",
        choices=["table", "json", "jsonl", "csv"],
        default="table",
        help="all but the table hold an entry for each image, in order, with its error where it has no answer",
    )
    form.add_argument("--json", dest="format", action="store_const", const="json", help="short for --format json")
    _device(attribution)
    attribution.add_argument(
        "--server",
        metavar="URL",
        help="ask this Triton server instead: HOST:PORT or grpc://HOST:PORT, or http://HOST:PORT",
    )

    _export_options(command("export", _export, "write a model for use without bmrl, and verify it"))

    serving = command("serve", _serve, "serve a repository with a real Triton Inference Server on this machine")
    serving.add_argument("repository", type=path, metavar="REPOSITORY", help="what bmrl export --format triton wrote")
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
    parser.add_argument("model", type=path, metavar="MODEL", help="a model folder; for triton, an exported file too")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--format", choices=[*_FORMATS, "triton"], metavar="FORMAT", help=", ".join([*_FORMATS, "triton"])
    )
    what.add_argument("--all", action="store_true", help="every format, with a table of size, speed and fidelity")
    parser.add_argument(
        "--out", type=path, required=True, metavar="PATH", help="a file; for triton and --all, a folder"
    )
    parser.add_argument(
        "--images",
        type=path,
        metavar="DIR",
        help="verify with these, and calibrate int8: a data folder (its test and training splits) or any folder of "
        "images (default: patterns)",
    )
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="what aoti is compiled for, and served on"
    )
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
    parser.add_argument(
        "--device",
        type=device,
        default="auto",
        metavar="DEVICE",
        help="auto (a GPU if there is one), cpu, cuda, cuda:N or mps (default: %(default)s)",
    )


def _trainer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        default="auto",
        choices=["auto", "cpu", "cuda", "gpu"],
        help="auto: a GPU if there is one; gpu: a GPU of any maker (default: %(default)s)",
    )
