"""The page, its WebSocket, `GET /metrics` and `GET /healthz`, for whoever follows a publisher in a browser.

Loopback by default. Beyond it a token is asked for, and TLS, without which browsers give nobody a camera, or an
explicit `--insecure`. A WebSocket is opened to pages of this server alone (its Origin), and takes nothing but small,
rare messages; everything else of the page comes from its own folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from emostream.errors import EmostreamError
from stream.pubsub.messages import MessageError, check_source
from stream.transport.protocol import IngestAddress
from stream.web.config import WebConfig, is_loopback
from stream.web.metrics import Metrics
from stream.web.relay import Page, PagesFull, Relay
from stream.web.visitors import MAX_VISITORS, Visitors

PAGE = Path(__file__).with_name("page")
COOKIE = "emostream_token"
MAX_REQUEST_BYTES = 4096  # from a page: which pictures it shows
MAX_REQUESTS_PER_S = 10
MAX_OFFER_BYTES = 65536  # a session description of a few kilobytes
MAX_SOURCES_SHOWN = 16
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(self), geolocation=()",
    "cache-control": "no-cache",
}
# WebSocket close codes of our own (4000 to 4999).
FOREIGN, FULL, TOO_MUCH = 4403, 4429, 4400


class Guard:
    """Refuses what is not meant for this server, and puts the security headers on every answer."""

    def __init__(self, app: ASGIApp, config: WebConfig) -> None:
        self._app = app
        self._config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        problem = self._problem(connection)
        if scope["type"] == "websocket":
            if problem is not None:
                socket = WebSocket(scope, receive, send)
                await socket.accept()  # a close code reaches the page only after that
                await socket.close(FOREIGN, problem)
                return
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        if problem is not None:
            answer: Response = JSONResponse({"error": problem}, status_code=403)
            await answer(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)

    def _problem(self, connection: HTTPConnection) -> str | None:
        host = connection.headers.get("host", "")
        # A name that an attacker's DNS points here would make our page part of his origin.
        if is_loopback(self._config.host) and not is_loopback(_name_of(host)):
            return f"unknown host {host[:100]!r}"
        origin = connection.headers.get("origin")
        asks = connection.scope["type"] == "http" and connection.scope["method"] in ("GET", "HEAD")
        if not asks and (origin is None or urlsplit(origin).netloc != host):
            return "wanted a page of this server"
        token = self._config.token
        if token is not None and connection.url.path != "/healthz":
            shown = (
                connection.query_params.get("token")
                or connection.cookies.get(COOKIE)
                or connection.headers.get("authorization", "").removeprefix("Bearer ")
            )
            if not secrets.compare_digest(shown.encode(), token.encode()):
                return "the token is missing or wrong: open the link that `emostream web` printed"
        return None


def _name_of(host: str) -> str:
    return urlsplit(f"//{host}").hostname or ""


def application(config: WebConfig, capture: IngestAddress | None = None) -> Starlette:
    """The ASGI application; follows the publisher from start-up to shut-down.

    Args:
        config: Where, and to whom.
        capture: Where browsers' cameras and microphones go; None takes none.
    """
    visitors = None if capture is None else Visitors(capture, MAX_VISITORS)
    metrics = Metrics()
    relay = Relay(config.connect, config.curve, metrics.observe)

    @contextlib.asynccontextmanager
    async def follow(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(relay.run())
        yield
        if visitors is not None:
            await visitors.close()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def index(request: Request) -> Response:
        if config.token is not None and "token" in request.query_params:
            answer = RedirectResponse(
                "/", status_code=303
            )  # the token must not stay in the address
            answer.set_cookie(
                COOKIE,
                config.token,
                httponly=True,
                samesite="strict",
                secure=config.scheme == "https",
            )
            return answer
        return FileResponse(PAGE / "index.html")

    async def show_metrics(_: Request) -> Response:
        return Response(metrics.text(), media_type=metrics.content_type)

    async def health(_: Request) -> Response:
        answer = {"connected": relay.connected, "pages": relay.pages}
        return JSONResponse(answer, status_code=200 if relay.connected else 503)

    async def visit(request: Request) -> Response:
        if visitors is None:
            return JSONResponse({"room": 0})
        if request.method == "GET":
            return JSONResponse({"room": visitors.room})
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MAX_OFFER_BYTES:
                return JSONResponse({"error": "the offer is too long"}, status_code=413)
        try:
            sdp, source = await visitors.welcome(body.decode())
        except (EmostreamError, UnicodeDecodeError) as error:
            return JSONResponse({"error": str(error)}, status_code=409)
        return JSONResponse({"sdp": sdp, "source": source})

    async def watch(socket: WebSocket) -> None:
        await socket.accept()
        try:
            with relay.page() as page:
                await _serve_page(socket, relay, page)
        except PagesFull:
            await socket.close(FULL, f"{relay.pages} pages are open; close one and reload")

    routes: list[Any] = [Route("/metrics", show_metrics), Route("/healthz", health)]
    if config.page:
        routes += [
            Route("/", index),
            WebSocketRoute("/events", watch),
            Route("/visit", visit, methods=["GET", "POST"]),
            Mount("/page", StaticFiles(directory=PAGE)),
        ]
    return Starlette(routes=routes, lifespan=follow, middleware=[Middleware(Guard, config=config)])


async def _serve_page(socket: WebSocket, relay: Relay, page: Page) -> None:
    """Send and receive until the page is closed or misbehaves."""

    async def send() -> None:
        async for message in page.messages():
            if isinstance(message, bytes):
                await socket.send_bytes(message)
            else:
                await socket.send_text(message)

    async def receive() -> None:
        budget, at_s = float(MAX_REQUESTS_PER_S), time.monotonic()
        while True:
            text = await socket.receive_text()
            now_s = time.monotonic()
            budget = min(MAX_REQUESTS_PER_S, budget + MAX_REQUESTS_PER_S * (now_s - at_s)) - 1
            at_s = now_s
            sources = _pictures_asked_for(text)
            if sources is None or budget < 0:
                await socket.close(TOO_MUCH, "wanted {pictures: [source, …]}, now and then")
                return
            relay.show_pictures(page, sources)

    tasks = [asyncio.create_task(send()), asyncio.create_task(receive())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            # KeyError: starlette's for a frame of bytes where text was wanted.
            with contextlib.suppress(WebSocketDisconnect, KeyError):
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _pictures_asked_for(text: str) -> frozenset[str] | None:
    """Sources of `{"pictures": […]}`, or None where a page says anything else."""
    try:
        asked = json.loads(text)["pictures"]
        if not isinstance(asked, list) or len(asked) > MAX_SOURCES_SHOWN:
            return None
        return frozenset(check_source(source) for source in asked)
    except (ValueError, KeyError, TypeError, MessageError, RecursionError):
        return None
