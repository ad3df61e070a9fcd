"""Whether a text gives the emotion away: reasons must not."""

import re
from collections.abc import Sequence

from emostream.labels import DEFAULT_LABELS, spellings


def names_label(text: str, labels: Sequence[str] = DEFAULT_LABELS) -> bool:
    """Whether a text names an emotion of the label set, in any spelling or as an adverb."""
    words = "|".join(
        re.escape(word[:-1]) + "(?:y|il[yi]\\w*)" if word.endswith("y") else re.escape(word)
        for label in labels
        for word in spellings(label)
    )
    return re.search(rf"\b(?:{words})(?:ly|ness|s|ed|ing)?\b", text, re.IGNORECASE) is not None
