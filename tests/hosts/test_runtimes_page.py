"""The code of the page about runtimes runs, and the page names every runtime."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from edgekit import hosts
from edgekit.hosts import flags

PAGE = Path(__file__).resolve().parents[2] / "docs" / "runtimes.md"


def test_the_code_of_the_page_runs() -> None:
    """In a process of its own: OpenVINO does not bear two cores."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    subprocess.run([sys.executable, "-c", "\n".join(blocks)], check=True, timeout=600)


def test_the_page_names_every_runtime() -> None:
    text = PAGE.read_text()
    assert all(f'library("{runtime}"' in text for runtime in hosts.ADAPTERS)
    assert {*hosts.ADAPTERS, "tensorrt"} == set(flags.HOSTS)
