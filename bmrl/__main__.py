"""``python -m bmrl``: the command ``bmrl``."""

from __future__ import annotations

from bmrl.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
