"""The evidence as a page: one HTML file that needs nothing else, no script and no network."""

from __future__ import annotations

from edgekit.report.page import task_page
from edgekit.report.pictures import Exhibit, Panel, exhibits

__all__ = ["Exhibit", "Panel", "exhibits", "task_page"]
