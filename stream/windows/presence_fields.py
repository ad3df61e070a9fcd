"""What labels and statuses carry of who is there; light to import."""

from typing import TYPE_CHECKING, Any

from stream.pubsub.messages import Absent, Face

if TYPE_CHECKING:
    from emostream.people.presence import Attendance

#: Said of a source that captures, but neither sees nor hears anybody.
NOBODY = "nobody in the picture"


def presence_fields(found: "Attendance | None") -> dict[str, Any]:
    """Fields of `Label` and `Status`; none where nobody looked."""
    if found is None:
        return {}
    face = found.face
    return {
        "people": found.people,
        "face": face and Face(box=face.box, confidence=face.confidence, track=face.track),
        "speech_ratio": found.speech_ratio,
        "absent": Absent(video=found.absent.video, audio=found.absent.audio),
    }
