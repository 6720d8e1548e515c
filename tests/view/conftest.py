"""What tests of the viewer share."""

from browser import browser, page

__all__ = ["browser", "page"]
