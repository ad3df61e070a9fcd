"""Scores that mean what they say: one temperature, fitted on clips that no training saw."""

from collections.abc import Iterable

import numpy as np
from scipy.optimize import minimize_scalar

from emostream.errors import ConfigError
from training.evaluation.results import Prediction

RANGE = (0.1, 10.0)


def fit_temperature(predictions: Iterable[Prediction], condition: str = "both") -> float:
    """The temperature under which the labels are likeliest (Guo et al. 2017, arXiv:1706.04599).

    Args:
        predictions: Of a model whose `label_temperature` is 1.
        condition: Whose label-first scores are fitted.

    Raises:
        ConfigError: No prediction has scores under that condition and a label among them.
    """
    logs, places = [], []
    for prediction in predictions:
        scores = prediction.scores.get(condition) or {}
        if prediction.label in scores:
            logs.append(np.log(np.maximum(list(scores.values()), 1e-12)))
            places.append(list(scores).index(prediction.label))
    if not logs:
        raise ConfigError(f"calibration: no clip has a label and scores for {condition}.")
    log_NL, of_N = np.array(logs), np.array(places)

    def surprise(log_temperature: float) -> float:
        cooled = log_NL / np.exp(log_temperature)
        cooled -= cooled.max(1, keepdims=True)
        right = cooled[np.arange(len(of_N)), of_N] - np.log(np.exp(cooled).sum(1))
        return float(-right.mean())

    found = minimize_scalar(surprise, bounds=np.log(RANGE), method="bounded")
    return round(float(np.exp(found.x)), 3)
