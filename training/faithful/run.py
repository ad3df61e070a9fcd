"""`faithful`: does what a model says follow from what it is shown? Tests by intervention, probes and readers.

OUT/faithful.json   the figures, with 95 % intervals over clips
OUT/pairs.jsonl     what came of each clip and its twin
OUT/answers.jsonl   what the model said of each clip, twin and edit
OUT/clips/          rendered clips and twins, where no manifest was given
OUT/features/       the towers' features of the clips, unless another folder holds them
"""

import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers

from emostream.answers import parse_answer
from emostream.errors import ConfigError
from emostream.labels import DEFAULT_LABELS, validate_labels
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor
from training.data.clip_encoding import Edit
from training.data.features import cache_features
from training.data.manifest import Row, read_manifest
from training.data.same_run import write_whole
from training.evaluation.outcomes import votes
from training.evaluation.predict import EvalSettings, predict
from training.evaluation.results import Prediction, judge_all
from training.faithful.edits import EDITS, edits
from training.faithful.pairs import Pair, by_kind, edit_pair, twin_pair
from training.faithful.probes import probe, statement_scores
from training.faithful.reader import consistency, train_reader
from training.sft.compose import compose
from training.synth.command import synth
from training.synth.twins import CHANGE, KIND, KINDS, MANIFEST, check_kinds, clip_of

logger = logging.getLogger(__name__)

RESULT = "faithful.json"
_FIXED = ("take", "actor")  # nothing that is claimed changes, nor does the label


@dataclass(frozen=True, slots=True, kw_only=True)
class FaithfulSettings:
    """What is tested.

    Attributes:
        clips: Clips rendered where no manifest is given, or taken from it, by the seed.
        seed: Of the clips.
        split: `train`, `test` or `ood` where clips are rendered, else of the manifest; None for `test`, or all rows.
        kinds: Of `training.synth.twins.KINDS`, the twins that are compared.
        edits: Of `training.faithful.edits.EDITS`, what is done to the clips.
        labels: The label set.
        batch_size: Clips at once.
        max_new_tokens: Longest answer.
        instruction: Question of the prompt; the processor's if None.
        heard_s: How long each actor was heard before, unedited, in his other clips of the manifest, for a model whose
            audio tower is standardised by who speaks; twins are left out then. Where it is 0, as long as a row says.

    Raises:
        ConfigError: A value is out of range or unknown.
    """

    clips: int = 200
    seed: int = 0
    split: str | None = None
    kinds: Sequence[str] = tuple(KINDS)
    edits: Sequence[str] = tuple(EDITS)
    labels: Sequence[str] = DEFAULT_LABELS
    batch_size: int = 16
    max_new_tokens: int = 128
    instruction: str | None = None
    heard_s: float = 0.0

    def __post_init__(self) -> None:
        validate_labels(self.labels)
        check_kinds(self.kinds)
        if unknown := [name for name in self.edits if name not in EDITS]:
            raise ConfigError(
                f"faithful: unknown edit {unknown[0]!r}; wanted some of {', '.join(EDITS)}"
            )
        for name in ("clips", "batch_size", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"faithful: {name} is {getattr(self, name)}; wanted 1 or more")
        if not 0 <= self.heard_s < math.inf:
            raise ConfigError(f"faithful: heard_s is {self.heard_s}; wanted seconds from 0 on")


class Clips(NamedTuple):
    """What a model is tested on.

    Attributes:
        rows: Clips with labels, and cues for all tests but edits and votes.
        twins: Theirs, as `corpus synth` writes them.
        others: Further clips of the same people, of which nothing but their voices is used.
    """

    rows: Sequence[Row]
    twins: Sequence[Row] = ()
    others: Sequence[Row] = ()


def find_clips(manifest: Path | None, out: Path, settings: FaithfulSettings) -> Clips:
    """The clips to test on, and their twins.

    Args:
        manifest: Rows to test on, with their twins if `twins.jsonl` stands beside it; rendered if None.
        out: Where clips are rendered.
        settings: How many, of which split.

    Raises:
        ConfigError: The manifest cannot be read or has no labelled rows of the split; voices are to have been heard
            before, and there is none.
    """
    if manifest is None:
        if settings.heard_s:
            raise ConfigError(
                f"faithful: {settings.heard_s:g} s of each actor are to have been heard, and rendered actors have one "
                "clip and its twins; name recordings of people with --manifest, or leave --heard-s out"
            )
        split = settings.split or "test"
        report = synth(
            out / "clips", settings.clips, settings.seed, split, twins=tuple(settings.kinds)
        )
        manifest = report.manifest
    rows = [
        row
        for row in read_manifest(manifest, settings.labels)
        if row.label is not None and settings.split in (None, row.split)
    ]
    if not rows:
        where = f"split {settings.split}" if settings.split else "it"
        raise ConfigError(f"{manifest}: no labelled rows in {where}; name a manifest with some")
    others: list[Row] = []
    if len(rows) > settings.clips:
        rng = np.random.default_rng(settings.seed)
        chosen = set(rng.choice(len(rows), settings.clips, replace=False))
        others = [row for at, row in enumerate(rows) if at not in chosen]
        rows = [row for at, row in enumerate(rows) if at in chosen]
    if settings.heard_s:
        rows = [replace(row, heard_s=settings.heard_s) for row in rows]
    if any(row.heard_s for row in rows):
        return Clips(rows, others=others)
    twins = manifest.with_name(MANIFEST)
    if not settings.kinds or not twins.is_file():
        return Clips(rows)
    wanted = {row.path for row in rows}
    return Clips(
        rows,
        [
            row
            for row in read_manifest(twins, settings.labels)
            if row.meta[KIND] in settings.kinds and clip_of(row) in wanted
        ],
    )


def measure(
    model: EmostreamForCausalLM,
    processor: EmostreamProcessor,
    clips: Clips,
    out: Path,
    settings: FaithfulSettings | None = None,
    *,
    model_name: str = "",
    features: Path | None = None,
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, Any]:
    """Test a model's reasons on clips, their twins and their edits; writes `out/faithful.json` and what it rests on.

    Args:
        model: From `load_model`, on its device.
        processor: Likewise.
        clips: From `find_clips`.
        out: Folder for the results.
        settings: What is tested.
        model_name: For the result.
        features: Folder of the towers' features; `out/features` if None.
        on_progress: Called with what is done, how much and of how much.

    Returns:
        The content of faithful.json.

    Raises:
        ConfigError: No clip is usable.
    """
    settings = settings or FaithfulSettings()
    out.mkdir(parents=True, exist_ok=True)
    asked = EvalSettings(
        labels=settings.labels,
        conditions=("both", "video", "audio"),
        batch_size=settings.batch_size,
        max_new_tokens=settings.max_new_tokens,
        instruction=settings.instruction,
    )
    rows, twins, others = clips
    everything = [*rows, *twins, *others]
    store = cache_features(
        model,
        processor,
        everything,
        features or out / "features",
        batch_size=settings.batch_size,
        on_progress=lambda done, total: on_progress("clips encoded", done, total),
    )
    usable = [at for at, row in enumerate(rows) if row in store]
    kept = [rows[at] for at in usable]
    if not kept:
        raise ConfigError(f"faithful: none of {len(rows)} clips could be used")

    def answers(
        of: Sequence[int], what: str, how: EvalSettings, edit: Edit | None = None
    ) -> list[Prediction]:
        done: list[Prediction] = []
        for batch in predict(model, processor, everything, of, how, store, edit):
            done += batch
            on_progress(what, len(done), len(of))
        return done

    own = answers(usable, "clips answered", asked)
    alone = replace(asked, conditions=("both",))
    changed = [at for at, row in enumerate(twins, len(rows)) if row in store]
    of_twins = answers(changed, "twins answered", alone)
    place = {row.path: at for at, row in enumerate(kept)}
    pairs = list(_twin_pairs(kept, [everything[at] for at in changed], own, of_twins, place))
    said = [("clip", p) for p in own] + [
        (str(everything[at].meta[CHANGE]), p) for at, p in zip(changed, of_twins, strict=True)
    ]
    edited: list[Pair] = []
    for name, (edit, expected) in edits(kept).items():
        # A prediction has scores under what its clip has.
        places = [at for at, p in enumerate(own) if expected.needs <= p.scores.keys()]
        if name in settings.edits and places:
            found = answers([usable[at] for at in places], f"{name} answered", alone, edit)
            said += [(name, p) for p in found]
            edited += [
                edit_pair(at, name, own[at], after, kept[at].cues, expected)
                for at, after in zip(places, found, strict=True)
                if after.skipped is None
            ]
    thinks = [parse_answer(p.text or "", settings.labels) for p in own]
    rng = np.random.default_rng(settings.seed)
    composed = ["" if row.cues is None else compose(row.cues, rng) for row in kept]
    outcomes = judge_all(own, settings.labels, {})
    result = {
        "model": model_name,
        "clips": len(kept),
        "skipped": len(rows) - len(kept),
        "twins": by_kind(pairs),
        "edits": by_kind(edited),
        "probes": probe(
            statement_scores(model, processor, store, kept, settings.instruction),
            [row.cues for row in kept],
        )
        if model.config.answer_style == "reasoned"
        else {},
        "reader": consistency(
            train_reader(),
            [answer.think for answer in thinks],
            [answer.label for answer in thinks],
            [str(row.label) for row in kept],
            composed,
        ),
        "votes": votes(outcomes),
        "settings": asdict(settings),
        "provenance": {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    _lines(out / "pairs.jsonl", [pair.to_json() for pair in (*pairs, *edited)])
    _lines(out / "answers.jsonl", [{"change": change, **p.to_json()} for change, p in said])
    write_whole(out / RESULT, json.dumps(result, indent=1) + "\n")
    return result


def _twin_pairs(
    rows: Sequence[Row],
    twins: Sequence[Row],
    own: Sequence[Prediction],
    theirs: Sequence[Prediction],
    place: dict[Path, int],
) -> Iterator[Pair]:
    for twin, after in zip(twins, theirs, strict=True):
        at = place.get(clip_of(twin))
        if at is None or rows[at].cues is None or twin.cues is None:
            continue
        kind, change = str(twin.meta[KIND]), str(twin.meta[CHANGE])
        told = own[at].first if kind in _FIXED else twin.label if change in KINDS else None
        cues = rows[at].cues, twin.cues
        yield twin_pair(at, kind, change, own[at], after, cues, told)  # type: ignore[arg-type]


def _lines(path: Path, values: Sequence[dict[str, Any]]) -> None:
    write_whole(path, "".join(json.dumps(value) + "\n" for value in values))
