"""Lightning's Trainer, taking nothing from the environment, the working folder or the process's signals.

Lightning reads its defaults from ``PL_TRAINER_*``, detects clusters by their environment variables (and, under SLURM,
loads and writes ``hpc_ckpt_*.ckpt`` in the working folder), replaces the handlers of signals, and ends the process on
Ctrl-C. A function of a library does none of this.
"""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING, Any

import lightning as L
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies.launchers.launcher import _Launcher

from bmrl.training._checkpoints import AtomicCheckpointIO

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["make_trainer", "run_trainer"]


def make_trainer(**arguments: Any) -> L.Trainer:
    """Return a Trainer of one device; ``arguments`` as Lightning's."""
    # An argument that is given, even if it is the default, is not looked up in the environment.
    defaults = {name: parameter.default for name, parameter in inspect.signature(L.Trainer).parameters.items()}
    own = {
        "devices": 1,
        "plugins": [LightningEnvironment(), AtomicCheckpointIO()],  # given one, Lightning detects no other environment
        "default_root_dir": os.devnull,  # no folder, so that no hpc_ckpt_*.ckpt is found in it
    }
    trainer = L.Trainer(**(defaults | own | arguments))
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.strategy._launcher = _InterruptKeeper()
    return trainer


def run_trainer(trainer: L.Trainer, *arguments: Any, **options: Any) -> None:
    """Call ``trainer.fit``; an interrupt leaves it as it came.

    Raises:
        KeyboardInterrupt: the very object that was raised in the training.
    """
    interrupt = None
    try:
        trainer.fit(*arguments, **options)
    except _InterruptedError as wrapped:
        interrupt = wrapped.interrupt
    if interrupt is not None:  # out of the handler, so that its traceback is not hung behind ours
        raise interrupt


class _InterruptedError(BaseException):
    """Carries a KeyboardInterrupt past Lightning, which would turn it into ``sys.exit(1)`` and ignore SIGINT."""

    def __init__(self, interrupt: KeyboardInterrupt) -> None:
        super().__init__()
        self.interrupt = interrupt


class _InterruptKeeper(_Launcher):
    """Starts the training in this process."""

    @property
    def is_interactive_compatible(self) -> bool:
        """See Lightning."""
        return True

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        """Call the function."""
        try:
            return function(*args, **kwargs)
        except KeyboardInterrupt as interrupt:
            raise _InterruptedError(interrupt) from None

    def kill(self, signum: Any) -> None:
        """There is no other process to end."""
