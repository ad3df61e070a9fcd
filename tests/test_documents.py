"""What is generated in the documents is up to date, and the site builds without a warning."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import jsonschema
import pytest

import emostream
from stream.pubsub.messages import decode_payload, encode
from tests.documents import ROOT, documents


def _module(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("program", ["docs/message_reference.py", "benchmarks/tables.py"])
def test_generated_text_is_up_to_date(program: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / program), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["label", "reasoning", "status"])
def test_examples_of_messages_conform(kind: str) -> None:
    reference = _module("docs/message_reference.py")
    _, payload = encode(reference.EXAMPLES[kind])
    schema = json.loads(files("stream").joinpath("schema", f"{kind}.json").read_text())
    jsonschema.validate(json.loads(payload), schema)
    assert decode_payload(payload) == reference.EXAMPLES[kind]
    assert json.dumps(json.loads(payload), indent=1) in reference.page()


def test_every_field_of_the_schemas_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "messages.md").read_text(encoding="utf-8")
    for kind in ("label", "reasoning", "status"):
        schema = json.loads(files("stream").joinpath("schema", f"{kind}.json").read_text())
        for name in schema["properties"]:
            assert f"`{name}`" in page


def test_every_public_name_is_in_the_api_reference() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^::: emostream\.(\w+)$", page, re.MULTILINE))
    assert described == set(emostream.__all__) - {"__version__"}


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    if any(importlib.util.find_spec(name) is None for name in ("mkdocs", "mkdocstrings")):
        pytest.skip("mkdocs or mkdocstrings is not installed: pip install -e '.[docs]'")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    pages = {path.name for path in (tmp_path / "site").rglob("*.html")}
    assert {"index.html", "messages.html", "architecture.html", "LOG.html", "api.html"} <= pages
    # No reader's browser is sent elsewhere for a font or a script.
    text = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "fonts.googleapis" not in text
    assert "cdn" not in text


def test_modules_that_documents_name_are_there() -> None:
    texts = [ROOT / "ARCHITECTURE.md", *documents()]
    named = {
        (text.name, path)
        for text in texts
        if text.name != "LOG.md"  # what it names was there then
        for path in re.findall(
            r"`((?:emostream|stream|training|export)/[\w/.]+)`", text.read_text(encoding="utf-8")
        )
    }
    assert len(named) > 30
    assert not {(text, path) for text, path in named if not (ROOT / path).exists()}
