"""``python -m edgekit.cli``: the same as the command ``edgekit``."""

from __future__ import annotations

import sys

from edgekit.cli import main

sys.exit(main())
