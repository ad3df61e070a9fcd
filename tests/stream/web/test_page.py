"""The page in a real browser, fed by a real publisher."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, expect

from stream.pubsub.messages import Absent, Face, Label
from stream.pubsub.publisher import Publisher
from stream.web.config import WebConfig
from stream.web.serve import serving
from tests.media_factory import Audio, Video, noise, write_media
from tests.stream.events import label, reasoning, status
from tests.stream.live_rig import live
from tests.stream.rigs import until

expect.set_options(timeout=30_000)


def settled(publisher: Publisher, page: Page) -> None:
    """Publish until the page shows it."""

    def shown() -> bool:
        publisher.publish(status(source="settled"))
        page.wait_for_timeout(50)
        return page.locator('[data-source="settled"]').count() == 1

    until(shown)


def test_what_is_published_is_shown(publisher: Publisher, link: str, page: Page) -> None:
    page.goto(link)
    settled(publisher, page)
    for window_id, top in enumerate(("sad", "sad", "angry"), start=8):
        publisher.publish(label(window_id=window_id, top=top))
    publisher.publish(reasoning(window_id=9, think="<b>Brows</b> are drawn & low."))
    publisher.publish(status(state="degraded", detail="audio missing"))
    card = page.locator('[data-source="cam0"]')
    expect(card.locator(".name")).to_have_text("angry")
    expect(card.locator(".bars li.held")).to_contain_text("60 %")
    expect(card.locator("blockquote")).to_have_text("<b>Brows</b> are drawn & low.")
    expect(card.locator(".state")).to_have_text("degraded: audio missing")
    expect(card.locator("dl")).to_contain_text("63 ms")
    # The keyboard goes back in time, and returns.
    card.locator(".timeline").focus()
    page.keyboard.press("ArrowLeft")
    expect(card.locator(".name")).to_have_text("sad")
    expect(card.locator(".timeline")).to_have_attribute("aria-valuetext", "1 seconds ago")
    page.keyboard.press("End")
    expect(card.locator(".name")).to_have_text("angry")


def test_reasons_are_shown_as_they_are_written(publisher: Publisher, link: str, page: Page) -> None:
    page.goto(link)
    settled(publisher, page)
    publisher.publish(label(window_id=8))
    growing = {"done": False, "answer": None, "agrees_with_label": None}
    publisher.publish(reasoning(window_id=8, think="The corners", **growing))
    card = page.locator('[data-source="cam0"]')
    expect(card.locator("blockquote")).to_have_text("The corners")
    expect(card.locator(".answer")).to_have_text("writing …")
    publisher.publish(reasoning(window_id=8))
    expect(card.locator("blockquote")).to_have_text("The corners of the mouth rise.")
    expect(card.locator(".answer")).to_contain_text("Answer: happy, as the label")


def test_pictures_can_be_shown_and_hidden(publisher: Publisher, link: str, page: Page) -> None:
    page.goto(link)
    settled(publisher, page)
    until(lambda: page.wait_for_timeout(20) is None and publisher.preview_wanted("settled"))
    red = np.zeros((120, 160, 3), np.uint8)
    red[..., 0] = 255
    publisher.publish_preview("settled", 1.0, red)
    canvas = page.locator('[data-source="settled"] .picture canvas')
    expect(canvas).to_be_visible()
    pixel = "c => [...c.getContext('2d').getImageData(80, 60, 1, 1).data]"
    shown = canvas.evaluate(pixel)
    assert shown[0] > 200
    assert max(shown[1:3]) < 60
    page.keyboard.press("p")
    expect(canvas).to_be_hidden()
    until(lambda: page.wait_for_timeout(20) is None and not publisher.preview_wanted("settled"))


def test_the_box_is_where_the_face_is_and_goes_with_it(
    publisher: Publisher, link: str, page: Page
) -> None:
    page.goto(link)
    settled(publisher, page)
    until(lambda: page.wait_for_timeout(20) is None and publisher.preview_wanted("settled"))
    face = Face(box=(0.25, 0.25, 0.5, 0.5), confidence=0.9, track=1)
    there = {"people": 1, "face": face, "speech_ratio": 0.5, "absent": Absent()}
    nobody = Absent(video="nobody visible", audio="nobody speaking")
    left = {"people": 0, "face": None, "speech_ratio": 0.0, "absent": nobody}
    card = page.locator('[data-source="settled"]')
    canvas, caption = card.locator(".picture canvas"), card.locator("figcaption")
    border = "c => [...c.getContext('2d').getImageData(40, 60, 1, 1).data].slice(0, 3)"
    black = np.zeros((120, 160, 3), np.uint8)
    publisher.publish(label(source="settled", window_id=20, **there))
    for event, says, drawn in (
        (status(source="settled", timestamp_s=10.1, **there), "one person", True),
        # No label comes of nobody: the status says it.
        (
            status(source="settled", timestamp_s=12.0, **left),
            "nobody visible, nobody speaking",
            False,
        ),
    ):
        publisher.publish(event)
        until(
            lambda event=event, says=says: (
                page.wait_for_timeout(20) is None
                and publisher.publish_preview("settled", event.timestamp_s, black) is None
                and caption.text_content() == says
            )
        )
        assert (max(canvas.evaluate(border)) > 60) == drawn
    expect(card).to_have_class("source away")
    expect(card.locator("dl")).to_contain_text("nobody speaking")


def test_the_page_recovers_when_publisher_and_server_start_anew(page: Page) -> None:
    with ExitStack() as stack:
        publisher = stack.enter_context(Publisher("tcp://127.0.0.1:*"))
        link = stack.enter_context(serving(WebConfig(connect=publisher.endpoint, port=0)))
        port, endpoint = int(link.rsplit(":", 1)[1].strip("/")), publisher.endpoint
        page.goto(link)
        settled(publisher, page)
        publisher.publish(label(window_id=8, top="sad"))
        expect(page.locator('[data-source="cam0"] .name')).to_have_text("sad")
    expect(page.locator("#link-text")).to_contain_text("does not answer")
    with (
        Publisher(endpoint) as publisher,
        serving(WebConfig(connect=endpoint, port=port)),
    ):
        expect(page.locator("#link-text")).to_have_text("connected")

        def shown() -> bool:
            publisher.publish(label(window_id=8, top="fear"))
            page.wait_for_timeout(50)
            return page.locator('[data-source="cam0"] .name').text_content() == "fear"

        until(shown)


def test_a_person_comes_and_goes_and_somebody_comes_after(
    publisher: Publisher, link: str, page: Page
) -> None:
    page.goto(link)
    settled(publisher, page)
    there = {"people": 2, "left_out": 0, "voice": "unattributed"}
    card = page.locator('[data-source="cam0-p2"]')
    for track, window_id, top in ((2, 8, "sad"), (3, 20, "angry")):
        face = Face(box=(0.5, 0.1, 0.2, 0.3), confidence=0.9, track=track)
        publisher.publish(label(source="cam0-p2", window_id=window_id, top=top, face=face, **there))
        publisher.publish(status(source="cam0-p2", face=face, **there))
        expect(card.locator(".name")).to_have_text(top)
        expect(card.locator(".state")).to_have_text("live")
        publisher.publish(status(source="cam0-p2", state="stopped"))
        expect(card.locator(".state")).to_have_text("stopped")
        page.reload()
    expect(card.locator(".name")).to_have_text("angry")


def test_a_token_opens_the_page_and_leaves_the_address(publisher: Publisher, page: Page) -> None:
    with serving(WebConfig(connect=publisher.endpoint, port=0, token="a b&c")) as link:
        page.goto(link)
        expect(page.locator("#link-text")).to_have_text("connected")
        assert "token" not in page.url
        settled(publisher, page)


def test_two_sources_on_a_phone_fit(publisher: Publisher, link: str, page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(link)
    settled(publisher, page)
    for source in ("left", "right"):
        publisher.publish(label(source=source, window_id=8))
    expect(page.locator(".source")).to_have_count(3)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_live_pipeline_shows_what_a_subscriber_gets(page: Page, tmp_path: Path) -> None:
    clip = write_media(
        tmp_path / "clip.mp4", Video(duration_s=6), Audio(duration_s=6, sound=noise())
    )
    shown = "e => [e.dataset.window, e.querySelector('.name').textContent]"
    with live("--source", f"me={clip}", "--loop", "--web", "0", "--reason-every-s", "0") as running:
        page.goto(running._said(r"page on (\S+)"))
        card = page.locator('[data-source="me"]')
        expect(card.locator(".name")).not_to_be_empty(timeout=120_000)
        window_id, name = card.evaluate(shown)
        event = running.until(lambda e: isinstance(e, Label) and e.window.id == int(window_id))
        assert event.smoothed.label == name
        running.send()
        running.until_stopped()
        assert running.wait() == 0
