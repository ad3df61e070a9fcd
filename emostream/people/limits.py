"""What may be asked of people in the picture; light to import."""

#: People of one source with topics of their own, whatever was asked for.
MOST_PEOPLE = 8
