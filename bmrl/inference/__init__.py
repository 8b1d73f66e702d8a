"""What runs after training: reading images, running a model on them, and deciding what each one is.

Evaluation, the exported graph and the server's clients all build on these definitions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmrl._lazy import lazy_names

if TYPE_CHECKING:
    from bmrl.inference.attributing import attribute
    from bmrl.inference.attribution import Attribution, attributions_from_probabilities, format_table
    from bmrl.inference.attributor import Attributor
    from bmrl.inference.decision import Decisions, decide
    from bmrl.inference.running import infer, resolve_model

__all__ = [
    "Attribution",
    "Attributor",
    "Decisions",
    "attribute",
    "attributions_from_probabilities",
    "decide",
    "format_table",
    "infer",
    "resolve_model",
]

_HOMES = {
    "Attribution": "attribution",
    "Attributor": "attributor",
    "Decisions": "decision",
    "attribute": "attributing",
    "attributions_from_probabilities": "attribution",
    "decide": "decision",
    "format_table": "attribution",
    "infer": "running",
    "resolve_model": "running",
}

__getattr__ = lazy_names(__name__, _HOMES)
