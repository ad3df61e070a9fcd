"""Voice heads fitted to the speech of people whose emotion is known: see `emostream.model.towers.VoiceHeads`.

One classifier for each corpus among its own labels, and one for all: corpora differ in language and in what an actor
makes of an emotion, and the language model learns which to believe. By gradient descent beside the tower they stay far
from what the same features allow (docs/LOG.md); multinomial logistic regression is fitted to the optimum in a minute.

Behind them stands what the voice does, for the reasons: ridge regression of Praat's measures against the speaker's own
(`people_rows.TOLD`), in the speaker's standard deviations.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor

from emostream.errors import EmostreamError
from emostream.labels import DEFAULT_LABELS
from emostream.model.towers import VoiceHeads, window_statistics
from training.data.features import FeatureStore
from training.data.manifest import Row
from training.recipe.people_rows import HEARD_S, TOLD
from training.recipe.voice_data import corpus_of

#: Inverse strength of the L2 penalty, of statistics in standard deviations.
C: Final = 0.003
#: By which those of prosody are multiplied: they are few, each means something, and so they are penalised less.
PROSODY_WEIGHT: Final = 6.0
#: Strength of the L2 penalty of the measures, and the farthest that one of them lies from the speaker's mean.
MEASURES_PENALTY: Final = 100.0
FARTHEST: Final = 3.0


def heads_of(rows: Sequence[Row]) -> int:
    """K, how many numbers there are for the corpora of some rows."""
    return len(DEFAULT_LABELS) * (len({corpus_of(row) for row in rows}) + 1) + len(TOLD)


def fit_voice_heads(
    heads: VoiceHeads, store: FeatureStore, rows: Sequence[Row], prosody: int = 0
) -> None:
    """Fit a model's voice heads in place.

    Args:
        heads: With `heads_of` outputs.
        store: Features of the rows, by the model's audio tower.
        rows: Speech with its emotion and, where it was measured, what the voice does; each is heard cold and after
            each of `HEARD_S`.
        prosody: How many of the features, the last, are those of `Prosody`.

    Raises:
        EmostreamError: Nobody speaks in any of them.
    """
    wanted = [replace(row, heard_s=seconds) for row in rows for seconds in HEARD_S]
    found = [store.voice(row) for row in wanted]
    statistics, labels, corpora, measures = [], [], [], []
    for row, voice in zip(wanted, found, strict=True):
        if voice is not None and (voice[1] > 0).any():
            statistics.append(window_statistics(*voice[:, None])[0].numpy())
            labels.append(DEFAULT_LABELS.index(str(row.label)))
            corpora.append(corpus_of(row))
            does = row.cues.voice if row.cues is not None else {}
            measures.append([does.get(name, np.nan) for name in TOLD])
    if not statistics:
        raise EmostreamError(
            f"voice heads: no speech in {len(rows)} clips; wanted some of every emotion. Check the corpora."
        )
    x_NS, y_N, of_N = np.stack(statistics), np.array(labels), np.array(corpora)
    middle, scale = x_NS.mean(0), x_NS.std(0) + 1e-6
    width = x_NS.shape[1] // 2
    of_prosody = np.arange(2 * width) % width >= width - prosody
    scale[of_prosody] /= PROSODY_WEIGHT
    x_NS = (x_NS - middle) / scale
    parts = [_fit(x_NS[of_N == corpus], y_N[of_N == corpus]) for corpus in sorted(set(corpora))]
    parts += [_fit(x_NS, y_N), _fit_measures(x_NS, np.array(measures))]
    weight_KS, bias_K = (torch.cat(part) for part in zip(*parts, strict=True))
    weight_KS = weight_KS / torch.from_numpy(scale)
    with torch.no_grad():
        heads.weight.copy_(weight_KS)
        heads.bias.copy_(bias_K - weight_KS @ torch.from_numpy(middle))


def _fit(x_NS: np.ndarray, y_N: np.ndarray) -> tuple[Tensor, Tensor]:
    """(7, S) weights and (7,) biases; zeros for labels that are not there."""
    fitted = LogisticRegression(C=C, max_iter=1000, class_weight="balanced").fit(x_NS, y_N)
    weight_KS = torch.zeros(len(DEFAULT_LABELS), x_NS.shape[1])
    bias_K = torch.zeros(len(DEFAULT_LABELS))
    if len(fitted.classes_) == 2:  # one row tells the second from the first
        fitted.coef_ = np.concatenate([-fitted.coef_, fitted.coef_]) / 2
        fitted.intercept_ = np.concatenate([-fitted.intercept_, fitted.intercept_]) / 2
    weight_KS[fitted.classes_] = torch.from_numpy(fitted.coef_.astype(np.float32))
    bias_K[fitted.classes_] = torch.from_numpy(fitted.intercept_.astype(np.float32))
    return weight_KS, bias_K


def _fit_measures(x_NS: np.ndarray, measures_NM: np.ndarray) -> tuple[Tensor, Tensor]:
    """(M, S) weights and (M,) biases; zeros for what was measured nowhere."""
    weight_MS = torch.zeros(measures_NM.shape[1], x_NS.shape[1])
    bias_M = torch.zeros(measures_NM.shape[1])
    for place, measured_N in enumerate(measures_NM.clip(-FARTHEST, FARTHEST).T):
        known = ~np.isnan(measured_N)
        if known.any():
            fitted = Ridge(alpha=MEASURES_PENALTY).fit(x_NS[known], measured_N[known])
            weight_MS[place] = torch.from_numpy(fitted.coef_.astype(np.float32))
            bias_M[place] = float(fitted.intercept_)
    return weight_MS, bias_M
