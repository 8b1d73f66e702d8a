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
    from bmrl.inference.calibrating import calibrate
    from bmrl.inference.calibration import RiskCoverage, conformal_limit, fit_temperature, risk_coverage, risk_limit
    from bmrl.inference.decider import Decider, decider_of, limits_of
    from bmrl.inference.decision import Decisions, decide
    from bmrl.inference.enrolling import Enrollment, enroll
    from bmrl.inference.limits import Limits
    from bmrl.inference.running import infer, resolve_model

__all__ = [
    "Attribution",
    "Attributor",
    "Decider",
    "Decisions",
    "Enrollment",
    "Limits",
    "RiskCoverage",
    "attribute",
    "attributions_from_probabilities",
    "calibrate",
    "conformal_limit",
    "decide",
    "decider_of",
    "enroll",
    "fit_temperature",
    "format_table",
    "infer",
    "limits_of",
    "resolve_model",
    "risk_coverage",
    "risk_limit",
]

_HOMES = {
    "Attribution": "attribution",
    "Attributor": "attributor",
    "Decider": "decider",
    "Decisions": "decision",
    "Enrollment": "enrolling",
    "Limits": "limits",
    "RiskCoverage": "calibration",
    "attribute": "attributing",
    "attributions_from_probabilities": "attribution",
    "calibrate": "calibrating",
    "conformal_limit": "calibration",
    "decide": "decision",
    "decider_of": "decider",
    "enroll": "enrolling",
    "fit_temperature": "calibration",
    "format_table": "attribution",
    "infer": "running",
    "limits_of": "decider",
    "resolve_model": "running",
    "risk_coverage": "calibration",
    "risk_limit": "calibration",
}

__getattr__ = lazy_names(__name__, _HOMES)
