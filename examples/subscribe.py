"""Print what emostream publishes: python examples/subscribe.py [tcp://HOST:PORT]."""

import sys

from emostream import EmotionClient, Label, Reasoning, Status

with EmotionClient(*sys.argv[1:2]) as client:
    for event in client:
        match event:
            case Label():
                print(event.source, event.smoothed.label, f"{max(event.scores.values()):.2f}")
            case Reasoning(done=True):
                print(event.source, event.answer, "because:", event.think)
            case Status():
                print(event.source, event.state, event.detail)
