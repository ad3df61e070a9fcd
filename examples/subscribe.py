"""Print what emostream publishes: python examples/subscribe.py [tcp://HOST:PORT]."""

import sys

from emostream import EmotionClient, Label, Reasoning, Status

with EmotionClient(*sys.argv[1:2]) as client:
    for event in client:
        if isinstance(event, Label):
            print(event.source, event.smoothed.label, f"{max(event.scores.values()):.2f}")
        elif isinstance(event, Reasoning) and event.done:
            print(event.source, event.answer, "because:", event.think)
        elif isinstance(event, Status):
            print(event.source, event.state, event.detail)
