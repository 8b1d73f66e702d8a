"""How Euclidean distances are computed."""

from __future__ import annotations

EXACT = "donot_use_mm_for_euclid_dist"
"""``compute_mode`` of ``torch.cdist``: distances from differences.

The matrix-product form, its own choice above 25 rows, loses near-duplicates to rounding.
"""
