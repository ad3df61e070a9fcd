"""Events for tests: builders with plausible values, and hypothesis strategies over the contract."""

from typing import Any

from hypothesis import strategies as st
from msgspec import structs

from stream.pubsub.messages import (
    Dropped,
    Event,
    Label,
    Latency,
    Modalities,
    Reasoning,
    Smoothed,
    Status,
    Window,
)

LABELS = ("happy", "surprise", "neutral", "angry", "disgust", "sad", "fear")
LATENCY = Latency(capture=3.5, queue=1.0, encode=20.25, prefill=30.0, decode=8.0, total=62.75)


def scores(top: str = "happy", p: float = 0.7) -> dict[str, float]:
    return {name: p if name == top else (1 - p) / (len(LABELS) - 1) for name in LABELS}


def label(source: str = "cam0", window_id: int = 8, top: str = "happy", **changes: Any) -> Label:
    end_s = window_id * 0.5
    event = Label(
        source=source,
        timestamp_s=end_s,
        unix_time_s=1.7e9 + end_s,
        window=Window(id=window_id, start_s=end_s - 4, end_s=end_s),
        label=top,
        scores=scores(top),
        smoothed=Smoothed(label=top, scores=scores(top, 0.6)),
        modalities=Modalities(video="ok", audio="ok"),
        frames_used=8,
        audio_gap_ms=0.0,
        av_skew_ms=-12.5,
        dropped=Dropped(frames=1, audio_ms=20.0, windows=0),
        latency_ms=LATENCY,
        model="tiny",
    )
    return structs.replace(event, **changes)


def reasoning(source: str = "cam0", window_id: int = 8, **changes: Any) -> Reasoning:
    end_s = window_id * 0.5
    event = Reasoning(
        source=source,
        timestamp_s=end_s,
        unix_time_s=1.7e9 + end_s,
        window=Window(id=window_id, start_s=end_s - 4, end_s=end_s),
        think="The corners of the mouth rise.",
        answer="happy",
        agrees_with_label=True,
        done=True,
        tokens=9,
        latency_ms=LATENCY,
    )
    return structs.replace(event, **changes)


def status(source: str = "cam0", **changes: Any) -> Status:
    event = Status(
        source=source,
        timestamp_s=4.0,
        unix_time_s=1.7e9 + 4,
        state="live",
        detail="",
        fps_in=29.97,
        hops_per_s=2.0,
        skipped=0,
        restarts=0,
        uptime_s=4.5,
    )
    return structs.replace(event, **changes)


def stamped(event: Event, seq: int = 0, session: str = "s1", published_s: float = 1.7e9) -> Any:
    return structs.replace(event, seq=seq, session=session, published_s=published_s)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
counts = st.integers(0, 2**53 - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
amounts = st.floats(0, allow_nan=False, allow_infinity=False)
sources = st.from_regex(r"[A-Za-z0-9_-]{1,32}", fullmatch=True)
latencies = st.builds(
    Latency,
    capture=finite,
    queue=finite,
    encode=amounts,
    prefill=amounts,
    decode=amounts,
    total=finite,
)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    start_s, end_s = sorted(draw(st.lists(finite, min_size=2, max_size=2, unique=True)))
    return Window(id=draw(counts), start_s=start_s, end_s=end_s)


@st.composite
def distributions(draw: st.DrawFn, names: list[str]) -> dict[str, float]:
    weights = draw(st.lists(st.floats(0.01, 1), min_size=len(names), max_size=len(names)))
    return {name: weight / sum(weights) for name, weight in zip(names, weights, strict=True)}


@st.composite
def labels(draw: st.DrawFn) -> Label:
    names = draw(st.lists(texts.filter(bool), min_size=1, max_size=8, unique=True))
    window = draw(windows())
    return Label(
        **draw(stamps()),
        source=draw(sources),
        timestamp_s=window.end_s,
        unix_time_s=draw(st.none() | finite),
        window=window,
        label=draw(st.sampled_from(names)),
        scores=draw(distributions(names)),
        smoothed=Smoothed(label=draw(st.sampled_from(names)), scores=draw(distributions(names))),
        modalities=draw(
            st.builds(
                Modalities,
                video=st.sampled_from(["ok", "degraded", "missing"]),
                audio=st.sampled_from(["ok", "degraded", "missing"]),
            )
        ),
        frames_used=draw(counts),
        audio_gap_ms=draw(amounts),
        av_skew_ms=draw(st.none() | finite),
        dropped=draw(st.builds(Dropped, frames=counts, audio_ms=amounts, windows=counts)),
        latency_ms=draw(latencies),
        model=draw(texts),
    )


@st.composite
def reasonings(draw: st.DrawFn) -> Reasoning:
    window, done = draw(windows()), draw(st.booleans())
    return Reasoning(
        **draw(stamps()),
        source=draw(sources),
        timestamp_s=window.end_s,
        unix_time_s=draw(st.none() | finite),
        window=window,
        think=draw(texts),
        answer=draw(st.none() | texts) if done else None,
        agrees_with_label=draw(st.none() | st.booleans()) if done else None,
        done=done,
        tokens=draw(counts),
        latency_ms=draw(latencies),
    )


@st.composite
def statuses(draw: st.DrawFn) -> Status:
    return Status(
        **draw(stamps()),
        source=draw(sources),
        timestamp_s=draw(finite),
        unix_time_s=draw(st.none() | finite),
        state=draw(st.sampled_from(["starting", "live", "degraded", "lost", "stopped"])),
        detail=draw(texts),
        fps_in=draw(amounts),
        hops_per_s=draw(amounts),
        skipped=draw(counts),
        restarts=draw(counts),
        uptime_s=draw(amounts),
    )


@st.composite
def stamps(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "session": draw(st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)),
        "seq": draw(counts),
        "published_s": draw(st.floats(1, 1e12)),
    }


events = st.one_of(labels(), reasonings(), statuses())
