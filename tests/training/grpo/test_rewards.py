import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emostream.answers import compose_answer
from emostream.errors import ConfigError
from emostream.labels import MAFW_LABELS
from training.claims.naming import names_label
from training.claims.wordings import SURFACE
from training.data.cues import FACE_UNITS, VOICE_DIMENSIONS, Cues, Informative
from training.grpo.rewards import (
    GroundingSettings,
    accuracy,
    grounding,
    is_degenerate,
    paper_accuracy,
    paper_format,
    reward_functions,
    well_formed,
)

GOOD = "<think>The brows are raised.</think>\n<answer>surprise</answer>"
# Salient: brows raised, eyes widened, jaw dropped, pitch high, rate high. Slight: loud.
CLIP = Cues(
    {"AU1": 0.8, "AU2": 0.7, "AU5": 0.6, "AU12": 0.0, "AU25": 0.9, "AU26": 0.5},
    {"pitch": 1.5, "rate": 0.9, "loudness": 0.6, "pauses": 0.0},
)


def score(think, cues=CLIP, answer="surprise", **settings):
    return grounding(compose_answer(think, answer), cues, settings=GroundingSettings(**settings))


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        (GOOD, 1.0),
        (GOOD.replace("surprise", "Surprised."), 1.0),
        (GOOD.replace("surprise", "fear"), 0.0),
        ("<answer>surprise</answer>", 1.0),  # format is another reward
        ("surprise", 0.0),
        (GOOD + "<answer>fear</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_accuracy(completion, right):
    assert accuracy(completion, "surprise") == right


def test_accuracy_in_a_label_set_of_its_own():
    text = GOOD.replace("surprise", "anxiety")
    assert accuracy(text, "anxious", MAFW_LABELS) == 1.0
    assert accuracy(text, "anxious") == 0.0


@pytest.mark.parametrize(
    ("completion", "ours", "papers"),
    [
        (GOOD, 1.0, 1.0),
        (GOOD.replace("\n", ""), 0.0, 1.0),
        ("<think><answer>x</answer></think>\n<answer>y</answer>", 0.0, 1.0),
        ("<think>x</think>\n<answer></answer>", 0.0, 1.0),
        (GOOD + ".", 0.0, 0.0),
        ("so " + GOOD, 0.0, 0.0),
        ("<think>x</think>", 0.0, 0.0),
    ],
)
def test_format(completion, ours, papers):
    assert (well_formed(completion), paper_format(completion)) == (ours, papers)


def test_the_papers_accuracy_is_letter_for_letter():
    assert paper_accuracy(GOOD, "surprise") == 1.0
    assert paper_accuracy(GOOD.replace("surprise", "surprised"), "surprise") == 0.0
    assert paper_accuracy(GOOD + "<answer>fear</answer>", "surprise") == 1.0


@pytest.mark.parametrize(
    ("think", "expected"),
    [
        # Five salient things are wanted, two modalities are to be covered.
        (
            "The brows are raised, the eyes are wide and the jaw drops. The pitch is high and the "
            "speech is fast.",
            5 / 5,
        ),
        ("The brows are raised and the eyes are wide. The pitch is high.", 3 / 5),
        # A slight cue pays half.
        ("The brows are raised and the eyes are wide. The voice is loud.", 2.5 / 5),
        # A wrong claim costs what a right one pays; what nobody can check costs half.
        ("The brows are raised and the eyes are wide. The pitch is low.", 1 / 5 * 1 / 2),
        (
            "The brows are raised and the eyes are wide. The pitch is high. The nose is wrinkled.",
            2.5 / 5,
        ),
        # Half the evidence, half the pay.
        ("The brows are raised, the eyes are wide and the jaw drops.", 3 / 5 * 1 / 2),
        # Saying it twice, or a part of it again, adds nothing.
        (
            "The brows are raised and the eyes are wide. The pitch is high. The eyebrows lift up.",
            3 / 5,
        ),
        (
            "The brows are raised, the inner brows are raised, the eyes are wide. High pitch.",
            3 / 5,
        ),
        # Safe claims pay nothing: denials, and what is as usual.
        ("The pitch is high. The eyes are wide. There is no smile.", 2 / 5),
        # Too little is nothing at all.
        ("The brows are raised. The pitch is high.", 0.0),
        ("", 0.0),
        ("Something is going on here.", 0.0),
        # More wrong than right does not go below nothing.
        ("The lip corners go up. The pitch is low. The speech is slow.", 0.0),
    ],
)
def test_grounding_by_hand(think, expected):
    assert score(think) == pytest.approx(expected)


def test_a_clip_with_little_to_say_asks_for_little():
    quiet = Cues({"AU12": 0.0, "AU4": 0.1}, {"pitch": 0.1}, Informative(True, True))
    assert score("The face is relaxed. The voice is even.", quiet) == 1.0
    assert score("The face is relaxed.", quiet) == 0.0
    assert score("The face is relaxed and the pitch is high.", quiet) == 0.0


def test_a_hidden_face_is_to_be_called_hidden():
    hidden = Cues({}, {"pitch": 1.5, "rate": 0.9}, Informative(video=False, audio=True))
    assert score("The face is hidden. The pitch is high and the speech is fast.", hidden) == 1.0
    made_up = "The brows are raised. The pitch is high and the speech is fast."
    assert score(made_up, hidden) == pytest.approx((2 - 1) / 3)


def test_an_uninformative_modality_need_not_be_mentioned():
    deadpan = Cues({"AU12": 0.0}, {"pitch": 1.5, "rate": 0.9}, Informative(False, True))
    text = "The pitch is high and the speech is fast. The face is still."
    assert score(text, deadpan) == 1.0
    assert score(text.removesuffix(" The face is still."), deadpan, least_claims=2) == 2 / 3


def test_naming_the_label_is_penalised_wherever_it_stands():
    think = "The brows are raised and the eyes are wide. The pitch is high."
    assert score(think + " A look of surprise.") == pytest.approx(3 / 5 - 0.5)
    assert score("This is fear.") == -0.5
    assert grounding("<think>Sad.", CLIP) == -0.5


def test_malformed_text_earns_nothing():
    think = "The brows are raised and the eyes are wide. The pitch is high."
    assert grounding(f"<think>{think}</think><answer>surprise</answer>", CLIP) == 0.0
    assert grounding(f"<think>{think}", CLIP) == 0.0


def test_repetition_and_padding_earn_nothing():
    think = "The brows are raised and the eyes are wide. The pitch is high."
    assert score(think) > 0
    assert score(think + " The pitch is high.") == 0.0
    assert score(think.replace("high", "high and high")) == 0.0
    assert score(think + " And so it went on and on in the room of many an old house" * 4) == 0.0
    padding = " ".join(f"word{i}" for i in range(40))
    assert score(f"{think} {padding}.") == 0.0


@pytest.mark.parametrize(
    ("text", "degenerate"),
    [
        ("", False),
        ("The brows are raised, the eyes are wide, the cheeks are raised.", False),
        ("strong and strong", True),
        ("very, very loud", True),
        ("He smiles. He SMILES!", True),
        ("a b c d a b c d a b c d", True),
        ("Furrowed brows are furrowed and the voice is low.", True),
        ("The voice is low and the brows are lowered.", False),
        ("The brows are raised and the lids are raised.", False),
    ],
)
def test_degenerate_text(text, degenerate):
    assert is_degenerate(text) is degenerate


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("She speaks angrily.", True),
        ("A HAPPY face", True),
        ("happily, and with joy", True),
        ("It is happiness.", True),
        ("fearfully", True),
        ("surprisingly", False),  # says something of the scene, not of the face
        ("a neutral tone", True),
        ("sadness", True),
        ("the saddle and the danger", False),
        ("The brows are raised.", False),
    ],
)
def test_naming_a_label(text, names):
    assert names_label(text) is names


def test_wordings_for_composing_name_no_label():
    for surface in SURFACE.values():
        assert not any(names_label(w, MAFW_LABELS) for w in (*surface.clauses, *surface.nouns))


@given(
    st.lists(st.sampled_from([w for s in SURFACE.values() for w in s.clauses]), max_size=9),
    st.builds(
        Cues,
        st.dictionaries(st.sampled_from(list(FACE_UNITS)), st.floats(0, 1)),
        st.dictionaries(st.sampled_from(list(VOICE_DIMENSIONS)), st.floats(-3, 3)),
        st.builds(Informative, st.booleans(), st.booleans()),
    ),
)
def test_bounds_and_a_full_description_earns_most(clauses, cues):
    think = " ".join(f"{clause.capitalize()}." for clause in clauses)
    assert 0.0 <= score(think, cues) <= 1.0
    salient = cues.salient()
    if {"face", "voice"} == {modality for modality, _, _ in salient}:
        full = " ".join(f"{SURFACE[key].clauses[0].capitalize()}." for key in salient)
        assert score(full, cues, least_claims=1, distinct_trigrams=0.0) == 1.0


def test_functions_have_the_signature_of_trl():
    functions = reward_functions()
    assert [f.__name__ for f in functions] == [
        "accuracy_reward",
        "format_reward",
        "grounding_reward",
    ]
    think = "The brows are raised and the eyes are wide. The pitch is high."
    chat = [{"role": "assistant", "content": compose_answer(think, "surprise")}]
    with_nulls = {**CLIP.to_json(), "voice": {**CLIP.voice, "tremor": None}}
    batch = {
        "prompts": ["p"] * 3,
        "completions": [chat, compose_answer(think, "fear"), "surprise"],
        "completion_ids": [[1], [2], [3]],
        "trainer_state": None,
        "label": ["surprise", "surprise", None],
        "cues": [json.dumps(CLIP.to_json()), with_nulls, None],
    }
    assert [f(**batch) for f in functions] == [
        [1.0, 0.0, None],
        [1.0, 1.0, 0.0],
        [pytest.approx(0.6), pytest.approx(0.6), None],
    ]
    assert reward_functions(["format"])[0](completions=[GOOD]) == [1.0]


def test_the_papers_rewards_by_name():
    functions = reward_functions(["paper_accuracy", "paper_format"])
    assert [f(completions=[GOOD], label=["surprise"]) for f in functions] == [[1.0], [1.0]]


def test_a_guess_costs_more_than_silence_only_below_a_floor_of_zero():
    wrong = "The pitch is low, the speech is slow and the voice is soft."
    half = "The brows are raised, the eyes are wide. The pitch is low and the speech is slow."
    assert score(wrong) == score("") == score(half, contradiction_cost=3) == 0
    assert score(wrong, floor=-1) == pytest.approx(-3 / 5)
    assert score(half, floor=-1, contradiction_cost=3) == pytest.approx((2 - 6) / 5)
    assert score(wrong, floor=-1, contradiction_cost=6) == -1
    assert score("", floor=-1) == 0


def test_a_single_sure_claim_pays_where_few_are_asked_for():
    assert score("The pitch is high.") == 0
    assert score("The pitch is high.", least_claims=1) == pytest.approx(1 / 5 * 1 / 2)


def test_settings_are_checked():
    with pytest.raises(ConfigError, match=r"floor is 0\.5"):
        GroundingSettings(floor=0.5)
    with pytest.raises(ConfigError, match="unknown 'lenght'"):
        reward_functions(["lenght"])
    with pytest.raises(ConfigError, match="least_claims <= wanted_claims"):
        GroundingSettings(wanted_claims=2)
    with pytest.raises(ConfigError, match="words_a_claim"):
        GroundingSettings(words_a_claim=0)
