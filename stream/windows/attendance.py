"""Who is there in a source's windows, and windows without what nobody is in."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emostream.people.crop import crop_face
from emostream.people.presence import Attendance, People, Scene, attendance, several
from emostream.people.speech import CHUNK
from stream.pubsub.messages import Modalities
from stream.transport.protocol import PCM_RATE_HZ
from stream.windows.person_names import person_name
from stream.windows.window import GridFrame, Window

if TYPE_CHECKING:
    from emostream.model.configuration import EmostreamConfig

#: Side of the square that each of several people is cut out by for a checkpoint that is shown whole frames, in sides of
#: a face: as much as a rendered actor's clip shows.
AROUND = 1.7


class Attendant:
    """Looks at each frame of a source once and hears its sound once, window by window; not for several threads.

    Args:
        config: Of the checkpoint: what it is shown of a frame. Where several people are shown, each is cut out of it
            anyhow, or the same would be said of all.
        people: How many are shown.
    """

    def __init__(self, config: "EmostreamConfig", people: int = 1) -> None:
        self._size_px = config.vision_config.image_size
        self._margin: float | None = config.crop_margin
        if config.frame_crop != "face":
            self._margin = AROUND if people > 1 else None
        self._people = People(people)
        self._scenes: dict[int, Scene] = {}  # of the frames of the newest window, by key
        self._crops: dict[tuple[int, int], NDArray[np.uint8]] = {}  # of them, by key and track
        self._looked_at = -1  # key of the newest frame

    @property
    def scenes(self) -> tuple[Scene, ...]:
        """What the frames of the newest window show, oldest first; each was looked at once."""
        return tuple(self._scenes.values())

    @property
    def spoken_s(self) -> list[tuple[float, float]]:
        """Stretches of the sound heard last in which somebody speaks, seconds of the source clock."""
        return [(a / PCM_RATE_HZ, b / PCM_RATE_HZ) for a, b in self._people.spoken]

    def attend(self, window: Window) -> list[tuple[Window, Attendance]]:
        """Leave out of a window what nobody is in.

        Frames in which the person's face was not found give way to the one before them, or the first, in which it was.
        Without a person, or with a face that is too small, there is no video; without speech, or with that of one of
        several, there is no audio.

        Args:
            window: Later than any before it.

        Returns:
            The window as the model is to have it, and who is there: of the first place always, and of every other that
            is somebody's, by the name of its person.
        """
        for frame in window.frames:
            # One that came late, into a gap that has been judged already, is not looked at.
            if frame.key > self._looked_at:
                self._scenes[frame.key] = self._people.see(frame.time_s, frame.rgb)
                self._looked_at = frame.key
        keys = {frame.key for frame in window.frames}
        self._scenes = {key: scene for key, scene in self._scenes.items() if key in keys}
        self._crops = {place: crop for place, crop in self._crops.items() if place[0] in keys}
        scene = self._scenes.get(window.frames[-1].key) if window.frames else None
        ratio = None
        if window.pcm is not None and window.pcm.size >= CHUNK:
            start = round(window.end_s * PCM_RATE_HZ) - window.pcm.size
            ratio = self._people.hear(start, window.pcm)
        crowd = several(self._scenes.values())
        taken = () if scene is None else scene.taken[1:]
        places = [0, *(place for place, whose in enumerate(taken, 1) if whose)]
        spoken = None if ratio is None else tuple(self._people.spoken)
        found = [
            replace(attendance(scene, ratio, place, crowd=crowd), spoken=spoken) for place in places
        ]
        return [
            (self._left(window, place, who), who) for place, who in zip(places, found, strict=True)
        ]

    def _left(self, window: Window, place: int, found: Attendance) -> Window:
        """The window as the model is to have it of a person."""
        frames, pcm = window.frames, window.pcm
        video, audio = window.modalities.video, window.modalities.audio
        if found.absent.audio is not None:
            pcm, audio = None, "missing"
        if found.absent.video is not None:
            frames, video = (), "missing"
        elif found.face is not None:
            frames = self._shown(place, found.face.track, frames)
            if [frame.repeated for frame in frames] != [frame.repeated for frame in window.frames]:
                video = "degraded"
        return replace(
            window,
            source=person_name(window.source, place),
            frames=frames,
            pcm=pcm,
            modalities=Modalities(video=video, audio=audio),
            frames_used=len({frame.key for frame in frames}),
            av_skew_ms=window.av_skew_ms if frames and pcm is not None else None,
        )

    def _shown(self, place: int, track: int, frames: Sequence[GridFrame]) -> tuple[GridFrame, ...]:
        out: list[GridFrame] = []
        awaiting = 0
        for frame in frames:
            scene = self._scenes.get(frame.key)
            person = None if scene is None else scene.shown[place]
            if person is None or not person.seen or person.track != track:
                if out:
                    out.append(replace(out[-1], repeated=True))
                else:
                    awaiting += 1
                continue
            if self._margin is not None:
                if (frame.key, track) not in self._crops:
                    self._crops[frame.key, track] = crop_face(
                        frame.rgb, person.box, size_px=self._size_px, margin=self._margin
                    )
                frame = replace(frame, rgb=self._crops[frame.key, track], whose=track)
            out.append(frame)
            out[:0] = [replace(frame, repeated=True)] * awaiting
            awaiting = 0
        return tuple(out)
