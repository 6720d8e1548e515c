"""What the viewer's tests share; mypy reads view_fixtures.py, not a second conftest.py."""

from browser import browser, page
from view_fixtures import big_served, made, served, static_site

__all__ = ["big_served", "browser", "made", "page", "served", "static_site"]
