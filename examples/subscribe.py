"""Print what emostream publishes: python examples/subscribe.py [tcp://HOST:PORT]."""

import sys

from emostream import EmotionClient

with EmotionClient(*sys.argv[1:2]) as client:
    for event in client:
        if event.topic.endswith(".label"):
            print(event.source, event.smoothed.label, f"{max(event.scores.values()):.2f}")
        elif event.topic.endswith(".reasoning") and event.done:
            print(event.source, event.answer, "because:", event.think)
        elif event.topic.startswith("status."):
            print(event.source, event.state, event.detail)
