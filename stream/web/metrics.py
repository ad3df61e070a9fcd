"""What a monitoring system asks for: counters and latencies of a publisher in Prometheus' form."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from stream.pubsub.messages import Event, Label, Reasoning

STAGES = ("capture", "queue", "encode", "prefill", "decode", "total")
BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
STATES = ("starting", "live", "degraded", "lost", "stopped")


class Metrics:
    """Kept up by every event; `text()` is what `GET /metrics` answers."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        by_source = ("source",)
        self._labels = Counter(
            "emostream_labels",
            "Labels published, by the rolling label.",
            ("source", "label"),
            registry=self._registry,
        )
        self._reasonings = Counter(
            "emostream_reasonings",
            "Explanations that were finished, by whether they agree with the label of their window.",
            ("source", "agrees"),
            registry=self._registry,
        )
        self._latency = Histogram(
            "emostream_label_latency_seconds",
            "Latency of labels by stage, total from the capture of the newest sample to the sending.",
            ("source", "stage"),
            buckets=BUCKETS_S,
            registry=self._registry,
        )
        self._gauges = {
            name: Gauge(f"emostream_{name}", text, by_source, registry=self._registry)
            for name, text in (
                ("frames_per_second", "Video frames that arrive from capture, per second."),
                ("hops_per_second", "Labels published, per second."),
                ("skipped_windows", "Windows skipped in this session, inference being too slow."),
                ("capture_restarts", "Restarts of capture in this session."),
                ("dropped_frames", "Video frames lost before the model saw them, this session."),
                ("dropped_audio_seconds", "Sound lost before the model heard it, this session."),
                ("last_label_timestamp_seconds", "Unix time of the last label's publication."),
            )
        }
        self._state = Gauge(
            "emostream_state",
            "1 for the state that a source is in.",
            ("source", "state"),
            registry=self._registry,
        )

    def observe(self, event: Event) -> None:
        """Count an event."""
        source = event.source
        if isinstance(event, Label):
            self._labels.labels(source, event.smoothed.label).inc()
            for stage in STAGES:
                self._latency.labels(source, stage).observe(getattr(event.latency_ms, stage) / 1e3)
            self._set(source, "dropped_frames", event.dropped.frames)
            self._set(source, "dropped_audio_seconds", event.dropped.audio_ms / 1e3)
            self._set(source, "last_label_timestamp_seconds", event.published_s)
        elif isinstance(event, Reasoning):
            if event.done:
                self._reasonings.labels(source, str(event.agrees_with_label).lower()).inc()
        else:
            for state in STATES:
                self._state.labels(source, state).set(event.state == state)
            self._set(source, "frames_per_second", event.fps_in)
            self._set(source, "hops_per_second", event.hops_per_s)
            self._set(source, "skipped_windows", event.skipped)
            self._set(source, "capture_restarts", event.restarts)

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry)

    def _set(self, source: str, name: str, value: float) -> None:
        self._gauges[name].labels(source).set(value)
