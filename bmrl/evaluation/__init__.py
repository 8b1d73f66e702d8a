"""Evaluation and attribution: metrics, the report, the shortcut baseline and :class:`Attributor`.

Import from the modules (``bmrl.evaluation.metrics``, ``.evaluate``, ``.attributor`` ...): this package loads none of
them by itself, so that attributing an image needs neither matplotlib nor scikit-learn nor Jinja2.
"""
