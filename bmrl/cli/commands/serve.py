"""``bmrl serve``: a repository behind a real Triton Inference Server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmrl.cli.arguments import path
from bmrl.cli.command import Command

if TYPE_CHECKING:
    import argparse

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("repository", type=path, metavar="REPOSITORY", help="what bmrl export --format triton wrote")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="IPv4 address to listen on, without a password or encryption; 0.0.0.0 for all (default: %(default)s)",
    )
    for protocol, port in (("http", 8000), ("grpc", 8001), ("metrics", 8002)):
        parser.add_argument(f"--{protocol}-port", type=int, default=port, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--threads", dest="num_threads", type=int, metavar="N", help="CPU threads per run (default: the repository's)"
    )
    parser.add_argument(
        "--log-level",
        default="warning",
        choices=["error", "warning", "info", "verbose"],
        help="what the server writes to stderr (default: %(default)s)",
    )
    parser.add_argument(
        "--model-control",
        default="none",
        choices=["none", "explicit"],
        help="explicit lets every client load and unload models, and so run code; on a loopback address only "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--shared-memory",
        action="store_true",
        help="let programs on this machine pass tensors through shared memory, with which they can also end the server",
    )
    parser.add_argument(
        "--startup-timeout",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="how long the models may take to load and to answer (default: %(default)s)",
    )
    parser.add_argument(
        "--probe-interval",
        type=float,
        default=2.0,
        metavar="SECONDS",
        help="time between the inferences that check whether to restore the model (default: %(default)s)",
    )


_SERVER = (
    "host",
    "http_port",
    "grpc_port",
    "metrics_port",
    "num_threads",
    "log_level",
    "model_control",
    "shared_memory",
    "startup_timeout",
)


def _run(options: argparse.Namespace) -> None:
    from bmrl._checks import check_positive
    from bmrl.export import TritonServer, serve

    check_positive("probe_interval", options.probe_interval)
    server = TritonServer(options.repository, **{name: getattr(options, name) for name in _SERVER})
    serve(server, probe_interval=options.probe_interval)


COMMAND = Command(
    name="serve",
    summary="serve a repository with a real Triton Inference Server on this machine",
    function="serve",
    add_arguments=_add_arguments,
    run=_run,
    takes=dict.fromkeys(("repository", *_SERVER), "server"),
    after_stop=lambda options: "",
)
