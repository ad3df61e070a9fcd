"""Who is there in a source's windows, and windows without what nobody is in."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from emostream.people.crop import crop_face
from emostream.people.presence import Attendance, People, Scene, attendance
from emostream.people.speech import CHUNK
from stream.pubsub.messages import Modalities
from stream.transport.protocol import PCM_RATE_HZ
from stream.windows.window import GridFrame, Window

if TYPE_CHECKING:
    from emostream.model.configuration import EmostreamConfig


class Attendant:
    """Looks at each frame of a source once and hears its sound once, window by window; not for several threads.

    Args:
        config: Of the checkpoint: what it is shown of a frame.
    """

    def __init__(self, config: "EmostreamConfig") -> None:
        self._config = config
        self._people = People()
        self._scenes: dict[int, Scene] = {}  # of the frames of the newest window, by key
        self._looked_at = -1  # key of the newest frame

    def attend(self, window: Window) -> tuple[Window, Attendance]:
        """Leave out of a window what nobody is in.

        Frames in which the person's face was not found give way to the one before them, or the first, in which it was.
        Without a person, or with a face that is too small, there is no video; without speech there is no audio.

        Args:
            window: Later than any before it.

        Returns:
            The window as the model is to have it, and who is there.
        """
        for frame in window.frames:
            # One that came late, into a gap that has been judged already, is not looked at.
            if frame.key > self._looked_at:
                self._scenes[frame.key] = self._people.see(frame.time_s, frame.rgb)
                self._looked_at = frame.key
        keys = {frame.key for frame in window.frames}
        self._scenes = {key: scene for key, scene in self._scenes.items() if key in keys}
        scene = self._scenes.get(window.frames[-1].key) if window.frames else None
        ratio = None
        if window.pcm is not None and window.pcm.size >= CHUNK:
            start = round(window.end_s * PCM_RATE_HZ) - window.pcm.size
            ratio = self._people.hear(start, window.pcm)
        found = attendance(scene, ratio)
        frames, pcm = window.frames, window.pcm
        video, audio = window.modalities.video, window.modalities.audio
        if found.absent.audio is not None:
            pcm, audio = None, "missing"
        if found.absent.video is not None:
            frames, video = (), "missing"
        elif found.face is not None:
            frames = self._shown(found.face.track, frames)
            if [frame.repeated for frame in frames] != [frame.repeated for frame in window.frames]:
                video = "degraded"
        attended = replace(
            window,
            frames=frames,
            pcm=pcm,
            modalities=Modalities(video=video, audio=audio),
            frames_used=len({frame.key for frame in frames}),
            av_skew_ms=window.av_skew_ms if frames and pcm is not None else None,
        )
        return attended, found

    def _shown(self, track: int, frames: Sequence[GridFrame]) -> tuple[GridFrame, ...]:
        out: list[GridFrame] = []
        awaiting = 0
        for frame in frames:
            scene = self._scenes.get(frame.key)
            person = None if scene is None else scene.shown[0]
            if person is None or not person.seen or person.track != track:
                if out:
                    out.append(replace(out[-1], repeated=True))
                else:
                    awaiting += 1
                continue
            if self._config.frame_crop == "face":
                crop = crop_face(
                    frame.rgb,
                    person.box,
                    size_px=self._config.vision_config.image_size,
                    margin=self._config.crop_margin,
                )
                frame = replace(frame, rgb=crop, whose=track)
            out.append(frame)
            out[:0] = [replace(frame, repeated=True)] * awaiting
            awaiting = 0
        return tuple(out)
