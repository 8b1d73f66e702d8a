"""What every test shares."""

from __future__ import annotations

from hypothesis import settings

# A deadline would fail tests on a busy machine: time is a matter for benchmarks.
settings.register_profile("bmrl", deadline=None, max_examples=50, print_blob=True)
settings.load_profile("bmrl")
