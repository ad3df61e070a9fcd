"""The training lexicon: the words by which a text says what a face does and how a voice sounds.

Three tables. A *subject* is the thing spoken of (brows, pitch); a *predicate* is what is said of it
(raised, low) and means a cue for each subject that it suits; a *phrase* says both at once (smile,
monotone). `training.claims.extract` puts them together. A meaning is (cue, direction, negated):
a "steady" voice denies tremor, so it is ("tremor", 1, True).

Two words that English uses both ways are settled here: a *low* voice is low in pitch (a *lowered*
one is soft), and a *frown* is of the brows.

`training.claims.wordings` has sentences to compose a text from, each read back as exactly its cue.
"""

from typing import Final, NamedTuple

from training.claims.claim import EXPRESSION, HIDDEN, PROSODY
from training.data.cues import Modality


class Meaning(NamedTuple):
    """What a wording says: a cue, which way, and whether it denies it."""

    cue: str
    direction: int = 1
    negated: bool = False


_OWNER = r"(?:the|his|her|their|its|both)\s+"

SUBJECTS: Final[dict[str, tuple[Modality, str]]] = {
    "inner_brow": (
        "face",
        rf"inner\s+(?:eye)?brows?|inner\s+(?:corners?|ends?|parts?)\s+of\s+{_OWNER}(?:eye)?brows?",
    ),
    "brow": ("face", r"(?:eye)?brows?|forehead"),
    "lid": ("face", r"(?:upper\s+)?(?:eye)?lids?"),
    "eye": ("face", r"eyes?"),
    "gaze": ("face", r"gaze|glance"),
    "cheek": ("face", r"cheeks?"),
    "nose": ("face", r"nose"),
    "upper_lip": ("face", r"upper\s+lip"),
    "corner": (
        "face",
        rf"(?:lip|mouth)\s+corners?|(?:corners?|edges?)\s+of\s+(?:{_OWNER})?(?:mouth|lips?)",
    ),
    "mouth": ("face", r"mouth"),
    "lip": ("face", r"lips?"),
    "chin": ("face", r"chin"),
    "jaw": ("face", r"jaw"),
    "head": ("face", r"head"),
    "face": (
        "face",
        r"face|facial\s+(?:expression|features|muscles)|expression|features|countenance",
    ),
    "pitch": ("voice", r"pitch|fundamental\s+frequency"),
    "range": ("voice", r"pitch\s+(?:range|variation|contour)|intonation|melody|inflection"),
    "volume": ("voice", r"volume|loudness"),
    "pace": (
        "voice",
        r"(?:speech|speaking|talking)\s+(?:rate|pace|speed|tempo)|rate|pace|tempo|speed|rhythm",
    ),
    "pause": ("voice", r"pauses?"),
    "voice": (
        "voice",
        r"(?:tone\s+of\s+)?voice|vocals?|tone|speech|speak(?:s|ing)?|spoken|talk(?:s|ing)?|"
        r"delivery|utterances?|words|vocal\s+(?:delivery|quality|timbre)|timbre",
    ),
}
"""Subject -> modality, pattern. Where two patterns match at one place the longer match counts."""

_SLACK = Meaning("jaw_dropped")
_CLOSED = Meaning("lips_parted", 1, True)

PREDICATES: Final[tuple[tuple[str, dict[str, Meaning]], ...]] = (
    (
        r"raised|rais(?:es?|ing)|lift(?:ed|s|ing)?|arch(?:ed|es|ing)?|elevated|ris(?:es?|en|ing)|"
        r"(?:pulled|drawn|turned|pushed|curled|tugged|going|go|goes|slant(?:ed|ing)?)\s+up(?:wards?)?|"
        r"up(?:wards?|turned)?",
        {
            "inner_brow": Meaning("inner_brows_raised"),
            "brow": Meaning("brows_raised"),
            "lid": Meaning("eyes_widened"),
            "cheek": Meaning("cheeks_raised"),
            "upper_lip": Meaning("upper_lip_raised"),
            "corner": Meaning("lip_corners_up"),
            "chin": Meaning("chin_raised"),
            "pitch": Meaning("pitch"),
            "volume": Meaning("loudness"),
            "voice": Meaning("loudness"),
        },
    ),
    (
        r"lower(?:ed|s|ing)|(?:pulled|drawn|turned|tugged|going|go|goes|cast|looking|looks?)\s+"
        r"down(?:wards?)?|down(?:wards?|turned|cast)?|droop(?:s|ing|ed|y)?|sag(?:s|ging|ged)?|"
        r"drop(?:s|ped|ping)?|bowed|sunken?|fall(?:s|en|ing)?|depressed",
        {
            "brow": Meaning("brows_lowered"),
            "corner": Meaning("lip_corners_down"),
            "mouth": Meaning("lip_corners_down"),
            "jaw": _SLACK,
            "head": Meaning("head_down"),
            "gaze": Meaning("gaze_down"),
            "eye": Meaning("gaze_down"),
            "pitch": Meaning("pitch", -1),
            "volume": Meaning("loudness", -1),
            "voice": Meaning("loudness", -1),
        },
    ),
    (
        r"furrow(?:ed|s|ing)?|knit(?:ted|s|ting)?|(?:drawn?|draws?|drawing|pulled|pull|squeezed|"
        r"pressed|come|came)\s+together|contract(?:ed|s|ing)?|pinched|creased?|frowning",
        {
            "brow": Meaning("brows_lowered"),
            "inner_brow": Meaning("brows_lowered"),
            "face": Meaning("brows_lowered"),
        },
    ),
    (
        r"wrinkl(?:ed|es|ing|e)|scrunch(?:ed|es|ing)?(?:\s+up)?|crinkl(?:ed|es|ing)",
        {"nose": Meaning("nose_wrinkled"), "brow": Meaning("brows_lowered")},
    ),
    (r"curl(?:ed|s|ing)?", {"upper_lip": Meaning("upper_lip_raised")}),
    (
        r"wide(?:ned|ly)?(?:\s+open)?|widen(?:s|ing)?|open(?:ed)?\s+wide|bulging|enlarged|"
        r"stretched\s+open",
        {
            "eye": Meaning("eyes_widened"),
            "lid": Meaning("eyes_widened"),
            "mouth": _SLACK,
            "jaw": _SLACK,
            "range": Meaning("pitch_range"),
        },
    ),
    (
        r"narrow(?:ed|s|ing)?|squint(?:ed|s|ing)?|half[\s-]closed|slitted|tightened|tight|tense",
        {
            "eye": Meaning("eyes_narrowed"),
            "lid": Meaning("eyes_narrowed"),
            "lip": Meaning("lips_pressed"),
            "mouth": Meaning("lips_pressed"),
            "corner": Meaning("lip_corner_dimpled"),
            "voice": Meaning("tension"),
            "range": Meaning("pitch_range", -1),
        },
    ),
    (r"tucked(?:\s+in)?|dimpled|pulled\s+in", {"corner": Meaning("lip_corner_dimpled")}),
    (
        r"closed|shut|clos(?:es|ing)",
        {
            "eye": Meaning("eyes_closed"),
            "lid": Meaning("eyes_closed"),
            "mouth": _CLOSED,
            "lip": _CLOSED,
        },
    ),
    (
        r"press(?:ed|es|ing)?(?:\s+(?:together|tight(?:ly)?))?|compress(?:ed|es|ing)?|pursed|"
        r"thin(?:ned)?|clamped",
        {"lip": Meaning("lips_pressed"), "mouth": Meaning("lips_pressed")},
    ),
    (
        r"stretch(?:ed|es|ing)?(?:\s+(?:wide|sideways|back|tight))?|(?:pulled|drawn)\s+"
        r"(?:back|sideways|wide)",
        {
            "lip": Meaning("lips_stretched"),
            "mouth": Meaning("lips_stretched"),
            "corner": Meaning("lips_stretched"),
        },
    ),
    (
        r"part(?:ed|s|ing)?|open(?:ed|s|ing)?|apart|ajar",
        {
            "lip": Meaning("lips_parted"),
            "mouth": Meaning("lips_parted"),
            "jaw": _SLACK,
            "eye": Meaning("eyes_closed", 1, True),
        },
    ),
    (
        r"agape|gap(?:es|ing)|slack|(?:falls?|fallen|falling|hangs?|hanging|drops?|dropped)\s+open",
        {"mouth": _SLACK, "jaw": _SLACK},
    ),
    (
        r"smooth|unfurrowed",
        {"brow": Meaning("brows_lowered", 1, True)},
    ),
    (
        r"relaxed|at\s+rest|resting|still|blank|neutral|impassive|unmoved|unmoving|calm|motionless|"
        r"expressionless|composed",
        {
            "face": Meaning(EXPRESSION, 0),
            "brow": Meaning("brows_lowered", 1, True),
        },
    ),
    (
        r"hidden|covered|concealed|obscured|invisible|turned\s+away|out\s+of\s+(?:view|sight|frame)|"
        r"(?:not|never)\s+(?:visible|seen|shown|in\s+view)|cannot\s+be\s+seen|can(?:no|')t\s+be\s+seen",
        {"face": Meaning(HIDDEN), "head": Meaning(HIDDEN)},
    ),
    (
        r"high(?:er)?|climb(?:s|ing)?",
        {
            "brow": Meaning("brows_raised"),
            "pitch": Meaning("pitch"),
            "voice": Meaning("pitch"),
            "volume": Meaning("loudness"),
            "pace": Meaning("rate"),
        },
    ),
    (r"shrill|squeaky", {"voice": Meaning("pitch"), "pitch": Meaning("pitch")}),
    (
        r"low(?:er)?",
        {
            "brow": Meaning("brows_lowered"),
            "pitch": Meaning("pitch", -1),
            "voice": Meaning("pitch", -1),
            "volume": Meaning("loudness", -1),
            "pace": Meaning("rate", -1),
        },
    ),
    (r"deep(?:er)?", {"pitch": Meaning("pitch", -1), "voice": Meaning("pitch", -1)}),
    (
        r"loud(?:er|ly)?|booming|forceful(?:ly)?|powerful|strong(?:ly)?",
        {"voice": Meaning("loudness"), "volume": Meaning("loudness")},
    ),
    (
        r"soft(?:er|ly)?|quiet(?:er|ly)?|faint(?:er|ly)?|hushed|weak(?:er|ly)?|subdued",
        {"voice": Meaning("loudness", -1), "volume": Meaning("loudness", -1)},
    ),
    (
        r"fast(?:er)?|quick(?:er|ly|ened)?|rapid(?:ly)?|hurried(?:ly)?|rush(?:ed|es|ing)|"
        r"brisk(?:ly)?|accelerat(?:ed|es|ing)",
        {"voice": Meaning("rate"), "pace": Meaning("rate")},
    ),
    (
        r"slow(?:er|ly|ed)?(?:\s+down)?|drawn[\s-]out|dragg(?:ed|ing)|drags?|sluggish(?:ly)?|"
        r"unhurried|deliberate(?:ly)?",
        {"voice": Meaning("rate", -1), "pace": Meaning("rate", -1)},
    ),
    (
        r"var(?:ied|ies|ying|iable)|lively|animated|melodic|swing(?:s|ing)?|dynamic|"
        r"fluctuat(?:es|ing)",
        {
            "voice": Meaning("pitch_range"),
            "pitch": Meaning("pitch_range"),
            "range": Meaning("pitch_range"),
        },
    ),
    (
        r"flat(?:ter)?|uniform|unvarying|unvaried|hardly\s+(?:moves|varies)|barely\s+(?:moves|varies)",
        {
            "voice": Meaning("pitch_range", -1),
            "pitch": Meaning("pitch_range", -1),
            "range": Meaning("pitch_range", -1),
        },
    ),
    (
        r"halting(?:ly)?|hesita(?:nt|ntly|tes?|ting)|broken(?:\s+up)?|interrupted|stumbl(?:es|ing)",
        {"voice": Meaning("pauses"), "pace": Meaning("pauses")},
    ),
    (
        r"fluent(?:ly)?|flow(?:s|ing)|uninterrupted|unbroken|continuous(?:ly)?",
        {"voice": Meaning("pauses", -1), "pace": Meaning("pauses", -1)},
    ),
    (r"airy|whispery|aspirated", {"voice": Meaning("breathiness")}),
    (r"clear(?:er|ly)?", {"voice": Meaning("breathiness", -1)}),
    (
        r"strained|sharp(?:er)?|harsh(?:ly|er)?|bright(?:er)?|hard|pressed|piercing|strident|"
        r"pinched",
        {"voice": Meaning("tension")},
    ),
    (
        r"lax|mellow(?:er)?|dull(?:er)?|muffled|dark(?:er)?|relaxed|loose",
        {"voice": Meaning("tension", -1)},
    ),
    (
        r"trembl(?:es?|ing|ed|y)|shak(?:es?|ing|y)|quaver(?:s|ing|ed)?|quiver(?:s|ing|ed)?|"
        r"waver(?:s|ing|ed)?|unsteady|tremulous|wobbl(?:es|ing|y)",
        {"voice": Meaning("tremor"), "pitch": Meaning("tremor")},
    ),
    (r"stead(?:y|ily)", {"voice": Meaning("tremor", 1, True), "pitch": Meaning("tremor", 1, True)}),
    (
        r"ordinary|(?<!than )usual|even|level|neutral|normal|average|moderate|calm|measured",
        {
            "voice": Meaning(PROSODY, 0),
            "pitch": Meaning("pitch", 0),
            "range": Meaning("pitch_range", 0),
            "volume": Meaning("loudness", 0),
            "pace": Meaning("rate", 0),
        },
    ),
    (
        r"long(?:er)?|many|frequent|often|repeated|several|noticeable",
        {"pause": Meaning("pauses")},
    ),
    (r"few(?:er)?|short(?:er)?|rare|brief", {"pause": Meaning("pauses", -1)}),
    (
        r"silent|inaudible|absent|missing|drowned(?:\s+out)?|masked|"
        r"(?:not|never)\s+(?:audible|heard|there)|cannot\s+be\s+heard|can(?:no|')t\s+be\s+heard",
        {"voice": Meaning(HIDDEN)},
    ),
)

PHRASES: Final[tuple[tuple[str, Modality, Meaning], ...]] = (
    (
        r"smil(?:e|es|ed|ing)|grin(?:s|ned|ning)?|beam(?:s|ed|ing)",
        "face",
        Meaning("lip_corners_up"),
    ),
    (r"frown(?:s|ed|ing)?|scowl(?:s|ed|ing)?", "face", Meaning("brows_lowered")),
    (r"smirk(?:s|ed|ing)?|dimples?", "face", Meaning("lip_corner_dimpled")),
    (r"sneer(?:s|ed|ing)?", "face", Meaning("upper_lip_raised")),
    (r"pout(?:s|ed|ing)?", "face", Meaning("lip_corners_down")),
    (r"wide[\s-]eyed", "face", Meaning("eyes_widened")),
    (r"crow'?s\s+feet", "face", Meaning("cheeks_raised")),
    (r"jaw[\s-]drop(?:s|ped|ping)?", "face", Meaning("jaw_dropped")),
    (r"look(?:s|ing)?\s+down(?:wards?)?", "face", Meaning("gaze_down")),
    (
        r"no\s+(?:facial\s+)?expression|without\s+(?:any\s+)?expression|expressionless(?:ly)?",
        "face",
        Meaning(EXPRESSION, 0),
    ),
    (
        r"no\s+face(?:\s+(?:is|can\s+be))?(?:\s+(?:seen|visible|shown))?|nothing\s+(?:is|can\s+be)\s+seen",
        "face",
        Meaning(HIDDEN),
    ),
    (r"tears?|tearful|weep(?:s|ing)?", "face", Meaning("tears")),
    (
        r"laugh(?:s|ed|ing|ter)?|chuckl(?:es?|ed|ing)|giggl(?:es?|ed|ing)",
        "voice",
        Meaning("laughter"),
    ),
    (r"cr(?:y|ies|ied|ying)|sob(?:s|bed|bing)?", "voice", Meaning("crying")),
    (r"sigh(?:s|ed|ing)?", "voice", Meaning("sighing")),
    (r"high[\s-]pitched", "voice", Meaning("pitch")),
    (r"(?:low|deep)[\s-]pitched", "voice", Meaning("pitch", -1)),
    (r"shout(?:s|ed|ing)?|yell(?:s|ed|ing)?|scream(?:s|ed|ing)?", "voice", Meaning("loudness")),
    (
        r"whisper(?:s|ed|ing)?|murmur(?:s|ed|ing)?|mutter(?:s|ed|ing)?|soft[\s-]spoken",
        "voice",
        Meaning("loudness", -1),
    ),
    (
        r"monoton(?:e|ous|ously|y)|(?:without|little|no)\s+(?:(?:much|any)\s+)?variation",
        "voice",
        Meaning("pitch_range", -1),
    ),
    (r"hesitations?", "voice", Meaning("pauses")),
    (r"breath(?:y|ily|iness)", "voice", Meaning("breathiness")),
    (
        r"(?:no|without(?:\s+any)?|hardly\s+any)\s+pauses?|without\s+pausing",
        "voice",
        Meaning("pauses", -1),
    ),
    (
        r"no\s+(?:voice|speech|words)(?:\s+(?:is|are|can\s+be)\s+(?:heard|audible|there))?|"
        r"nothing\s+(?:is|can\s+be)\s+heard|(?:only|just|nothing\s+but)\s+(?:background\s+)?"
        r"(?:noise|silence)(?:\s+is\s+heard)?",
        "voice",
        Meaning(HIDDEN),
    ),
)
