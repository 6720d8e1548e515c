"""What the viewer's tests share."""

from browser import browser, page

__all__ = ["browser", "page"]
