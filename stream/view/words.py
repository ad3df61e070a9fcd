"""What the terminal view says in words: the reasons, the health line, what is waited for."""

from __future__ import annotations

from itertools import islice

from rich.text import Text

from stream.pubsub.messages import Label, Reasoning, Status
from stream.view.look import Look
from stream.view.marks import crop, flow, spread, styled, wrap
from stream.view.scores import clock
from stream.view.state import SourceView

_PRESENCE = {"ok": "green", "degraded": "yellow", "missing": "red"}
_WAITING = {
    "starting": ("Starting", "loading the model and opening the source"),
    "live": ("Live", "the first label comes once a whole window has been seen"),
    "degraded": ("Degraded", "the first label comes once a whole window has been seen"),
    "lost": ("Lost", "neither video nor audio arrives"),
    "stopped": ("Stopped", "before its first label"),
}


def waiting(view: SourceView, look: Look, width: int) -> list[Text]:
    """What is shown in place of figures before the first label."""
    head, reason = _WAITING[view.state]
    if view.status is not None and view.status.detail:
        reason = look.clean(view.status.detail)
    return [styled(head, "bold"), *(styled(row) for row in wrap(reason, width))]


def reasons(view: SourceView, look: Look, width: int, height: int) -> list[Text]:
    """The newest answer and its reasons, their end if they are too long; earlier answers below."""
    reasoning = view.reasoning
    if reasoning is None:
        return [styled("Why", "bold").append("  no reasons given yet", "dim")][:height]
    text = wrap(look.clean(told(reasoning)), width - 2)  # leaves room for … and ▌
    room = height - 1
    if len(text) > room > 0:
        text = text[-room:]
        text[0] = look.fit("…") + text[0]
    rows = [crop(styled(row), width) for row in text[: max(0, room)]]
    if rows and not reasoning.done:
        rows[-1].append(look.fit("▌"), "bold")
    rows.insert(0, _answer(view, reasoning, look, width))
    for earlier in islice(view.earlier, max(0, height - len(rows) - 1)):
        if earlier is view.earlier[0]:
            rows.append(styled(""))
        row = styled(f"{_age_s(view, earlier):4.0f} s  ").append_text(_verdict(earlier, look))
        row.append("  ").append(look.clean(told(earlier)[: 2 * width]))
        row = crop(row, width, look.fit("…"))
        row.stylize("dim")
        rows.append(row)
    return rows[:height]


def told(reasoning: Reasoning) -> str:
    """The explanation as people read it: a model may have an answer and nothing to say of it."""
    return reasoning.think.strip() or ("Nothing stands out." if reasoning.done else "")


def _answer(view: SourceView, reasoning: Reasoning, look: Look, width: int) -> Text:
    left = styled("Why", "bold").append("  ")
    if reasoning.done:
        left.append_text(_verdict(reasoning, look))
        if reasoning.agrees_with_label:
            left.append(" agrees with the label", "green")
        elif reasoning.answer is not None:
            label = view.label_of(reasoning.window.id)
            other = (
                "the label is another" if label is None else f"the label was {look.clean(label)}"
            )
            left.append(f" {other}", "yellow")
    else:
        left.append(look.fit("writing…"), "cyan")
    age_s = _age_s(view, reasoning)
    right = styled(f"{reasoning.tokens} tokens, window of {age_s:.0f} s ago", "dim")
    return spread(left, right, width)


def _verdict(reasoning: Reasoning, look: Look) -> Text:
    if reasoning.answer is None:
        return styled("no answer", "yellow")
    text = styled(look.clean(reasoning.answer), "bold")
    if reasoning.agrees_with_label:
        return text.append(look.fit(" ✓"), "green")
    return text.append(look.fit(" ✗"), "yellow")


def _age_s(view: SourceView, reasoning: Reasoning) -> float:
    """Seconds of the source clock from the explained window to the newest."""
    newest_s = reasoning.timestamp_s if view.label is None else view.label.timestamp_s
    return max(0.0, newest_s - reasoning.timestamp_s)


def health(view: SourceView, look: Look, width: int) -> list[Text]:
    """What is wrong, in words, then figures, the most telling first."""
    label, status = view.label, view.status
    rows = []
    if status is not None and status.detail and label is not None:
        style = "yellow" if status.state in ("degraded", "lost") else ""
        row = styled(look.fit("▲ ") + look.clean(status.detail), style)
        rows.append(crop(row, width, look.fit("…")))
    facts = []
    if label is not None:
        latency = _fact("latency", f"{label.latency_ms.total:.0f} ms")
        facts.append(latency.append(f" p95 {view.recent_latency_ms(0.95):.0f}", "dim"))
        facts.append(_fact("video", label.modalities.video, _PRESENCE[label.modalities.video]))
        facts.append(_fact("audio", label.modalities.audio, _PRESENCE[label.modalities.audio]))
    if (found := view.presence) is not None:
        missing = found.absent is not None and (found.absent.video or found.absent.audio)
        facts.insert(0, _fact("there", look.clean(presence(found)), "yellow" if missing else ""))
    if label is not None and label.baseline_s is not None:
        facts.append(_fact("voice known", f"{label.baseline_s:.0f} s"))
    if status is not None:
        facts.append(_fact("hops/s", f"{status.hops_per_s:.1f}"))
        facts.append(_fact("fps", f"{status.fps_in:.1f}"))
    if label is not None:
        facts.append(_losses(label, status))
        if label.av_skew_ms is not None:
            skew = f"{label.av_skew_ms:+.0f} ms".replace("-", "−")
            facts.append(_fact("skew", look.fit(skew)))
    facts.append(_fact("seq gaps", str(view.lost), "yellow" if view.lost else ""))
    if status is not None:
        if status.restarts:
            facts.append(_fact("restarts", str(status.restarts), "yellow"))
        facts.append(_fact("up", clock(status.uptime_s)))
    return rows + flow(facts, width)


def presence(found: Label | Status) -> str:
    """Who is there, as a message says it."""
    absent, people = found.absent, found.people
    said = ["no picture" if people is None else people_seen(people)]
    if absent is not None:
        # That nobody is visible has been said; of one of several it has not.
        said += [absent.video] if absent.video and people else []
        said += [absent.audio] if absent.audio else []
    return ", ".join(said)


def people_seen(people: int) -> str:
    """How many people are visible."""
    if not people:
        return "nobody visible"
    return "1 person" if people == 1 else f"{people} people"


def _losses(label: Label, status: Status | None) -> Text:
    dropped = label.dropped
    skipped = max(dropped.windows, 0 if status is None else status.skipped)
    parts = [f"{dropped.frames} frames"] if dropped.frames else []
    parts += [f"{dropped.audio_ms:.0f} ms audio"] if dropped.audio_ms else []
    parts += [f"{skipped} windows"] if skipped else []
    return _fact("dropped", ", ".join(parts) or "0", "yellow" if parts else "")


def _fact(name: str, value: str, style: str = "") -> Text:
    return styled(f"{name} ", "dim").append(value, style or None)
