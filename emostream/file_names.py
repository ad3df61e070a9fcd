"""Names of files as people give them and as they stand on disk."""

import unicodedata
from pathlib import Path


def find_file(name: str | Path) -> Path:
    """The file of a name, its accents composed on disk (NFC) or not (NFD); `name` itself if there is none."""
    forms = (Path(unicodedata.normalize(form, str(name))) for form in ("NFC", "NFD"))
    return next((path for path in (Path(name), *forms) if path.exists()), Path(name))
