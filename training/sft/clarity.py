"""How clear each cue of a clip is to a reader of the towers' tokens, for reasons that say what can be told.

Cues record what was acted, also what is too slight, covered or drowned in noise to be made out. A model that learns
to name all of it learns to guess. A classifier on the clip's mean tokens, which has seen nothing of the person, says
how sure anyone can be.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Final, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold

from emostream.errors import ConfigError
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor
from training.claims.claim import Claim
from training.claims.verify import Verdict, judge
from training.claims.wordings import SURFACE
from training.data.cues import Cues, Modality
from training.data.features import FeatureStore
from training.data.manifest import Key, Row, clip_key
from training.evaluation.probe import mean_tokens, token_classifier
from training.sft.compose import sayable
from training.sft.phrasing import Claimed

FOLDS: Final = 4
LEAST_CLIPS: Final = 100
#: Where nothing of a modality is clear, its clearest cue is if it is likelier than not.
LIKELY: Final = 0.5
_CLAIMS: Final = tuple(SURFACE)


def clear_cues(
    model: EmostreamForCausalLM,
    processor: EmostreamProcessor,
    store: FeatureStore,
    rows: Sequence[Row],
    least: float,
    seed: int = 0,
) -> dict[Key, frozenset[Claimed]]:
    """Which cues of each clip, marked and slight, can be told from its tokens.

    Args:
        model: Whose connector and projector make the tokens.
        processor: Its processor.
        store: Features of all clips.
        rows: The clips; those without cues are passed over.
        least: Probability from which a cue is clear, in [0, 1].
        seed: Of the folds and the classifiers.

    Returns:
        Clip -> its clear cues; of a modality that has none, the clearest if it is likelier than not.

    Raises:
        ConfigError: There are too few clips with cues to learn from, or too few people in them.
    """
    told = [(row, row.cues) for row in rows if row.cues is not None]
    if len(told) < LEAST_CLIPS:
        raise ConfigError(
            f"clear_from: {len(told)} clips with cues are too few to tell what is clear; wanted {LEAST_CLIPS} or "
            "more, or clear_from 0."
        )
    people = [row.actor or str(clip_key(row)) for row, _ in told]
    if len(set(people)) < FOLDS:
        raise ConfigError(
            f"clear_from: clips of {len(set(people))} people are too few to tell what is clear of another; wanted "
            f"{FOLDS} or more, or clear_from 0."
        )
    tokens_NH = mean_tokens(model, processor, store, [row for row, _ in told])
    holds_NC = np.array([[_holds(claimed, cues) for claimed in _CLAIMS] for _, cues in told])
    clearness_NC = held_out_probabilities(tokens_NH, holds_NC, people, seed)
    there = [
        [c for modality in get_args(Modality) for c in sayable(cues, modality, slight=True)]
        for _, cues in told
    ]
    return {
        clip_key(row): frozenset(_clear(claims, dict(zip(_CLAIMS, clearness, strict=True)), least))
        for (row, _), claims, clearness in zip(told, there, clearness_NC.tolist(), strict=True)
    }


def held_out_probabilities(
    features_NF: NDArray[np.floating],
    holds_NC: NDArray[np.bool_],
    people: Sequence[str],
    seed: int = 0,
) -> NDArray[np.float64]:
    """(N, C) probability of each statement, by classifiers that were trained on other people."""
    out_NC = np.zeros(holds_NC.shape)
    names, of_N = np.unique(people, return_inverse=True)
    for _, held_out in KFold(FOLDS, shuffle=True, random_state=seed).split(names):
        held_N = np.isin(of_N, held_out)
        classifier = token_classifier(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it stops early or it does not
            classifier.fit(features_NF[~held_N], holds_NC[~held_N])
        out_NC[held_N] = classifier.predict_proba(features_NF[held_N])
    return out_NC


def _holds(claimed: Claimed, cues: Cues) -> bool:
    return judge(Claim(*claimed), cues) is Verdict.SUPPORTED


def _clear(
    there: Sequence[Claimed], clearness: Mapping[Claimed, float], least: float
) -> set[Claimed]:
    clear = {claimed for claimed in there if clearness[claimed] >= least}
    for modality in {claimed[0] for claimed in there} - {claimed[0] for claimed in clear}:
        clearest = max((c for c in there if c[0] == modality), key=clearness.__getitem__)
        if clearness[clearest] >= LIKELY:
            clear.add(clearest)
    return clear
