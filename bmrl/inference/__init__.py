"""What runs after training: reading images, running a model on them, and deciding what each one is.

Evaluation, the exported graph and the server's clients all stand on these definitions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmrl._lazy import lazy_names

if TYPE_CHECKING:
    from bmrl.inference.attributing import attribute
    from bmrl.inference.attribution import Attribution, attributions_from_probabilities, format_table
    from bmrl.inference.attributor import Attributor

__all__ = ["Attribution", "Attributor", "attribute", "attributions_from_probabilities", "format_table"]

_HOMES = {
    "Attribution": "attribution",
    "Attributor": "attributor",
    "attribute": "attributing",
    "attributions_from_probabilities": "attribution",
    "format_table": "attribution",
}

__getattr__ = lazy_names(__name__, _HOMES)
