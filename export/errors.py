"""The error of the package."""

from emostream.errors import EmostreamError


class ExportError(EmostreamError):
    """An export directory cannot be made, read or trusted, or nothing here runs it."""
