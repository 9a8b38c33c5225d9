"""What the MovieLens data sets have in common: attributes of a movie, and titles as people say them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from reaemb_bench.data.interactions import Attributes

INSTRUCTION = "The movie has the following attributes:"
CITATION = (
    "F. Maxwell Harper and Joseph A. Konstan (2015). The MovieLens Datasets: History and Context. "
    "ACM Transactions on Interactive Intelligent Systems 5(4), 19:1-19:19. https://doi.org/10.1145/2827872"
)
_NO_GENRE = ("unknown", "(no genres listed)")
_ARTICLES = "The|A|An|Il|Lo|La|Le|Les|Gli|L'|Un|Une|Una|Uno|El|Los|Las|Das|Der|Die|Eine?|De|Den|Det|Het|En|Ett|Et|Os"
# A year, or the years of a series, of which the first counts; what follows it is not part of the title.
_YEAR = re.compile(r"^(.*\S)\s*\((\d{4})(?:\s*[-\u2013]\s*(?:\d{4})?)?\s*\)")

Movies = dict[str, Attributes]


def movie(title: str, genres: Iterable[str], year: str = "") -> Attributes:
    """Title, year and genres of a movie from its title in the catalogue, in which the year may stand in brackets."""
    if found := _YEAR.search(title):
        title, year = found.groups()
    kept = [genre for genre in genres if genre not in _NO_GENRE]
    return {"title": natural_title(title.strip()), "year": year, "genres": kept}


def natural_title(title: str) -> str:
    """The title as people say it: "Godfather, The" becomes "The Godfather"."""
    moved = re.sub(rf"([^()]+), ({_ARTICLES})(?=\s*(?:[()]|$))", r"\2 \1", title)
    return moved.replace("L' ", "L'")
