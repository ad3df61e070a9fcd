"""A publisher, the page's server beside it, and a real browser."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from playwright.sync_api import Browser, sync_playwright

from stream.pubsub.publisher import Publisher
from stream.web.config import WebConfig
from stream.web.serve import serving
from tests.system_packages import CHROMIUM


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with Publisher("tcp://127.0.0.1:*") as publisher:
        yield publisher


@pytest.fixture
def link(publisher: Publisher) -> Iterator[str]:
    with serving(WebConfig(connect=publisher.endpoint, port=0)) as link:
        yield link


@pytest.fixture(scope="module")  # while it is there, Playwright's event loop runs in this thread
def start_browser() -> Iterator[Callable[..., Browser]]:
    """Starts Debian's chromium, with further arguments."""
    CHROMIUM.skip_if_missing()
    quiet = (
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    )
    with sync_playwright() as playwright:
        yield lambda *arguments: playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=[*quiet, *arguments]
        )


@pytest.fixture(scope="module")
def browser(start_browser: Callable[..., Browser]) -> Iterator[Browser]:
    browser = start_browser()
    yield browser
    browser.close()


@pytest.fixture
def page(browser) -> Iterator:
    """A page in which any complaint of the browser, its content security policy's included, fails the test."""
    context = browser.new_context()
    page, complaints = context.new_page(), []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda said: complaints.append(said.text) if "Security Policy" in said.text else None,
    )
    yield page
    context.close()
    assert not complaints


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A certificate for 127.0.0.1, its key, and the authority that signed it."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    folder = tmp_path_factory.mktemp("tls")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    authority.cert_pem.write_to_path(folder / "authority.pem")
    return folder / "cert.pem", folder / "key.pem", folder / "authority.pem"
