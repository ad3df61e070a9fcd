import numpy as np
import pytest

from emostream.errors import ConfigError
from training.evaluation.calibration import fit_temperature
from training.evaluation.results import Prediction


def predictions(temperature, count=4000):
    """Clips whose labels are drawn from scores, which are then made surer than they should be."""
    rng = np.random.default_rng(0)
    out = []
    for index in range(count):
        logs = rng.normal(0, 1.5, 3)
        true = np.exp(logs) / np.exp(logs).sum()
        said = np.exp(logs * temperature) / np.exp(logs * temperature).sum()
        label = "abc"[rng.choice(3, p=true)]
        scores = {"both": dict(zip("abc", said.tolist(), strict=True))}
        out.append(Prediction(index=index, path="", label=label, scores=scores))
    return out


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_it_finds_how_much_too_sure_a_model_is(temperature):
    assert fit_temperature(predictions(temperature)) == pytest.approx(temperature, rel=0.1)


def test_there_must_be_scores():
    with pytest.raises(ConfigError, match="no clip"):
        fit_temperature([Prediction(index=0, path="", label="a")])
