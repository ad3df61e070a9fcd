"""True and false statements about a clip, scored by the candidate tree: does a model know, whatever it writes?

EmotionHallucer (arXiv:2505.11405) asks yes-no questions in pairs, one with a true and one with a made-up statement, and
counts a pair where both are answered right. Models that were trained on reasons answer no questions; theirs is how
likely each statement is as the first of the reasoning. Of a pair the true statement should be the likelier. Some
statements are common, and the reasons go from the brows down, so that a statement's own mean over all clips is
taken off first (`accuracy`; `uncorrected` is without).
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import torch

from emostream.inference.prefill import WindowPrefill
from emostream.inference.scoring import text_tree
from emostream.inference.streaming import MediaTokens
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor
from training.claims.wordings import SURFACE
from training.data.cues import FACE_ABSENT, FACE_ACTIONS, VOICE_DIMENSIONS, Cues, Modality
from training.data.features import FeatureStore
from training.data.manifest import Row
from training.evaluation.bootstrap import Ratio, draws, estimate
from training.faithful.pairs import figures_json

Statement = tuple[Modality, str, int]
STATEMENTS: Final[tuple[Statement, ...]] = tuple(
    key for key in SURFACE if key[1] in FACE_ACTIONS or key[1] in VOICE_DIMENSIONS
)
_BATCH: Final = 16


@torch.inference_mode()
def statement_scores(
    model: EmostreamForCausalLM,
    processor: EmostreamProcessor,
    store: FeatureStore,
    rows: Sequence[Row],
    instruction: str | None = None,
) -> np.ndarray:
    """(N, S) log-probability of each of `STATEMENTS` as the first of a reasoning, relative to one another.

    Args:
        model: On its device.
        processor: Its processor.
        store: Features of all clips.
        rows: The clips.
        instruction: Question of the prompt; the processor's if None.
    """
    texts = {
        " ".join(map(str, key)): [
            f"<think>{clause[0].upper()}{clause[1:]}" for clause in SURFACE[key].clauses
        ]
        for key in STATEMENTS
    }
    instruction = instruction or processor.instruction
    tree = text_tree(processor.tokenizer, texts).to(model.device)
    prefill = WindowPrefill(model, processor, tree, instruction)
    gate_13 = model.model.gate(*processor.gate_inputs(instruction))
    scores = []
    for begin in range(0, len(rows), _BATCH):
        tokens = [
            _tokens(model, store.features(row), gate_13) for row in rows[begin : begin + _BATCH]
        ]
        hidden_BRH, _ = prefill.run(tokens)
        log_probs_BRV = model.lm_head(hidden_BRH).float().log_softmax(-1)
        scores.append(tree.scores(log_probs_BRV).clamp_min(1e-30).log().cpu().numpy())
    return np.concatenate(scores)


def _tokens(
    model: EmostreamForCausalLM, features: dict[str, torch.Tensor], gate_13: torch.Tensor
) -> MediaTokens:
    found: dict[str, torch.Tensor | None] = {}
    for name in ("vision_features", "audio_features"):
        value = features.get(name)
        if value is None:
            found[name] = None
            continue
        one = {name: value[None].to(model.device, model.dtype)}
        parts = model.model.embed_media(**one, gate=gate_13)
        found[name] = next(part for part in parts if part is not None)[0]
    return MediaTokens(found["vision_features"], found["audio_features"])


def pairs(cues: Cues, rng: np.random.Generator) -> Iterator[tuple[Statement, Statement]]:
    """(true, false) statements of a clip, of one modality each.

    A marked dimension of the voice stands against its opposite, a marked action of the face against one at rest.
    """
    still: list[Statement] = [
        key
        for key in STATEMENTS
        if key[0] == "face"
        and (value := cues.face_value(key[1])) is not None
        and value < FACE_ABSENT
    ]
    for modality, cue, direction in cues.salient():
        true = (modality, cue, direction)
        false: Statement | None = (modality, cue, -direction)
        if modality == "face":
            false = still[int(rng.integers(len(still)))] if still else None
        if true in STATEMENTS and false in STATEMENTS:
            assert false is not None
            yield true, false


def probe(scores_NS: np.ndarray, cues: Sequence[Cues | None], seed: int = 0) -> dict[str, Any]:
    """How often the true statement of a pair is the likelier, by modality and by what it is about.

    Args:
        scores_NS: From `statement_scores`.
        cues: Of the same clips; those without are passed over.
        seed: Of the false statements.
    """
    rng = np.random.default_rng(seed)
    centred_NS = scores_NS - scores_NS.mean(0)
    place = {key: at for at, key in enumerate(STATEMENTS)}
    made: dict[str, list[tuple[int, bool, bool]]] = {}
    for clip, known in enumerate(cues):
        for true, false in () if known is None else pairs(known, rng):
            t, f = place[true], place[false]
            entry = (
                clip,
                bool(centred_NS[clip, t] > centred_NS[clip, f]),
                bool(scores_NS[clip, t] > scores_NS[clip, f]),
            )
            for name in ("all", true[0], f"{true[0]}.{true[1]}"):
                made.setdefault(name, []).append(entry)
    drawn = draws(len(cues))
    out = {}
    for name, entries in sorted(made.items()):
        below, right, plain = (np.zeros((len(cues), 1)) for _ in range(3))
        for clip, corrected, uncorrected in entries:
            below[clip] += 1
            right[clip] += corrected
            plain[clip] += uncorrected
        found = {
            "accuracy": estimate([Ratio(right, below)], drawn),
            "uncorrected": estimate([Ratio(plain, below)], drawn),
        }
        out[name] = {"pairs": len(entries), **figures_json(found)}
    return out
