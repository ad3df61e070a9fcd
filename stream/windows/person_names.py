"""Names of the sources that several people of one source are; light to import."""

import re
from collections.abc import Collection

from emostream.errors import ConfigError
from stream.pubsub.messages import MessageError, check_source


def person_name(source: str, place: int) -> str:
    """Name of the person in a place, from 0: the first has the source's own, the second `cam0-p2` beside `cam0`."""
    return source if place == 0 else f"{source}-p{place + 1}"


def person_of(name: str) -> tuple[str, int] | None:
    """Source and number, from 2, of a person beyond the first, if a source is called like one."""
    found = re.fullmatch(r"(.+)-p([2-9])", name)
    return None if found is None else (found[1], int(found[2]))


def check_person_names(sources: Collection[str], people: int) -> None:
    """See to it that so many people of each source can have names.

    Raises:
        ConfigError: One would be another source's name, or longer than a name may be.
    """
    for source in sources:
        for place in range(1, people):
            name = person_name(source, place)
            if name in sources:
                raise ConfigError(
                    f"source {name}: with --people {people} that is the name of a person of {source}; give it another "
                    "name, or ask for fewer people."
                )
            try:
                check_source(name)
            except MessageError as error:
                raise ConfigError(
                    f"source {source}: with --people {people} a person of it would be {name}, which is too long; give "
                    f"it a name of {32 - len(name) + len(source)} letters at most."
                ) from error
