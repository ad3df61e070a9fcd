"""What labels and statuses carry of who is there; light to import."""

from typing import TYPE_CHECKING, Any

from stream.pubsub.messages import Absent, Face

if TYPE_CHECKING:
    from emostream.people.presence import Attendance

#: Said of a source that captures, but neither sees nor hears anybody, and of one whose person others stand before.
NOBODY, AWAY = "nobody in the picture", "not in the picture"


def why_no_label(found: "Attendance") -> str:
    """Why nothing is said of a person though something is captured."""
    if not found.people:
        return NOBODY
    if found.face is None:
        return AWAY
    return ", ".join(filter(None, (found.absent.video, found.absent.audio)))


def track_of(found: "Attendance | None") -> int | None:
    """Number of the person that is judged; None if nobody is visible, or nobody looked."""
    return None if found is None or found.face is None else found.face.track


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
        "left_out": found.left_out,
        "voice": found.voice,
    }
