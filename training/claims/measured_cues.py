"""Voice cues for the rows of a manifest that have none, measured with Praat."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from emostream.errors import MediaError
from emostream.media import read_audio
from training.claims.measure import Baseline, VoiceMeasures, measure_voice
from training.data.cues import Cues, Informative
from training.data.manifest import Row

LEAST_CLIPS = 3
_NEUTRAL = ("neutral", "calm")


@dataclass(frozen=True, slots=True)
class MeasuredRows:
    """Rows with measured voices.

    Attributes:
        rows: All rows, in order; those that could be measured carry cues.
        measured: How many do.
        without_actor: Rows whose speaker is not known, or has too few clips for a baseline.
        without_voice: Rows with no audio, or no voice in it.
    """

    rows: tuple[Row, ...]
    measured: int
    without_actor: int
    without_voice: int


def with_measured_voice(
    rows: Sequence[Row],
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    workers: int = 2,
) -> MeasuredRows:
    """Give rows without cues the voice cues that Praat measures against the same speaker's clips.

    A speaker's baseline is the mean of their neutral clips (of all, if there are none) and the
    spread of all. Rows that have cues keep them; faces are not measured.

    Args:
        rows: Rows of a manifest.
        on_progress: Called with the number of clips measured so far, and of all.
        workers: Threads.
    """
    todo: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if row.cues is None and row.actor is not None:
            todo[row.actor].append(index)
    enough = {actor: indices for actor, indices in todo.items() if len(indices) >= LEAST_CLIPS}
    indices = [index for known in enough.values() for index in known]
    found: dict[int, VoiceMeasures] = {}
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(lambda index: _measure(rows[index]), indices)
        for done, (index, measures) in enumerate(zip(indices, results, strict=True), 1):
            if measures is not None:
                found[index] = measures
            on_progress(done, len(indices))
    cues: dict[int, Cues] = {}
    without_actor = sum(row.cues is None for row in rows) - len(indices)
    for known in enough.values():
        heard = [index for index in known if index in found]
        if len(heard) < LEAST_CLIPS:
            without_actor += len(heard)
            continue
        neutral = [found[index] for index in heard if rows[index].label in _NEUTRAL]
        baseline = Baseline.of([found[index] for index in heard], neutral)
        for index in heard:
            voice = {name: round(v, 3) for name, v in baseline.cues(found[index]).items()}
            cues[index] = Cues({}, voice, Informative(True, True))
    return MeasuredRows(
        rows=tuple(replace(row, cues=cues.get(i, row.cues)) for i, row in enumerate(rows)),
        measured=len(cues),
        without_actor=without_actor,
        without_voice=len(indices) - len(found),
    )


def _measure(row: Row) -> VoiceMeasures | None:
    try:
        return measure_voice(read_audio(row.path, row.start_s, row.end_s).pcm)
    except MediaError:
        return None
