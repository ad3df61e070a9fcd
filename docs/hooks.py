"""What mkdocs does besides: pages from the repository's root, and links that work there and here."""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
#: Document at the root -> page of the site.
PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s:]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add the pages whose text is at the root."""
    for document, page in PAGES.items():
        text = (ROOT / document).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Make links between documents links between pages; those to code, which has none, become plain text."""
    here = page.file.src_uri
    documents = {page: document for document, page in PAGES.items()}
    source = ROOT / documents.get(here, f"docs/{here}")

    def follow(found: re.Match[str]) -> str:
        mark, text, target, anchor = found.groups()
        path = (source.parent / target).resolve()
        if not path.exists():
            return found[0]  # mkdocs refuses it by name
        name = path.relative_to(ROOT).as_posix()
        to = PAGES.get(name) or (name.removeprefix("docs/") if name.startswith("docs/") else None)
        if to is None or (path.is_dir() and not (path / "README.md").is_file()):
            return text
        relative = os.path.relpath(to, os.path.dirname(here) or ".")
        return f"{mark}[{text}]({Path(relative).as_posix()}{anchor or ''})"

    return _LINK.sub(follow, markdown)
