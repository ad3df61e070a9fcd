"""Whose voice a window holds, as a model that gets to know voices is told."""

from typing import TYPE_CHECKING

from emostream.people.voice_baseline import VoiceStretch
from stream.transport.protocol import PCM_RATE_HZ
from stream.windows.presence_fields import track_of
from stream.windows.window import Window

if TYPE_CHECKING:
    from emostream.people.presence import Attendance


def voice_stretch(window: Window, found: "Attendance | None") -> VoiceStretch:
    """The sound of a window, of whom it is, and where in it somebody speaks.

    Where nobody looks, and of a source without pictures, it is always the same person's; where somebody does, it is
    the only visible person's or nobody's.

    Args:
        window: As the model is given it.
        found: Who is there; None where nobody looks.
    """
    samples = 0 if window.pcm is None else window.pcm.size
    start = round(window.end_s * PCM_RATE_HZ) - samples
    if found is None:
        return VoiceStretch(start=start, samples=samples)
    return VoiceStretch(
        start=start,
        samples=samples,
        spoken=found.spoken,
        person=track_of(found),
        theirs=found.people is None or found.voice == "attributed",
    )
