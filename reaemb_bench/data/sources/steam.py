"""Steam: reviews of computer games, with dates to the day."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from reaemb_bench.core.machine import Machine
from reaemb_bench.data.interactions import About, Attributes, Interactions
from reaemb_bench.data.lines import Field
from reaemb_bench.data.published import PublishedFile
from reaemb_bench.data.sources.reviews import Line, ReviewFiles, read_reviews
from reaemb_bench.data.text import one_text, plain_text, readable


class Steam(ReviewFiles):
    """Steam's reviews of games until 2018: downloaded, or `steam_reviews.json.gz` and `steam_games.json.gz`.

    Lines are Python dictionaries, of which only constants are read and nothing is executed. Users are known by their
    user names. Attributes: title, genres, tags, specs, developer, publisher and release_date; what only the future
    knew, the sentiment of all reviews, is left out.
    """

    about: ClassVar[About] = About(
        "https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data",
        "published for research; no licence stated, citation asked for",
        "Wang-Cheng Kang, Julian McAuley, Self-Attentive Sequential Recommendation, ICDM 2018",
        download="1.3 GB",
        minutes="35",
    )

    name: str = "steam"
    """Name of the data set in tables."""

    def published(self) -> Mapping[str, PublishedFile]:
        """Both files, without those that settings name."""
        return {
            held: PublishedFile((f"https://cseweb.ucsd.edu/~wckang/{name}.json.gz",))
            for held, name in {"reviews": "steam_reviews", "metadata": "steam_games"}.items()
            if getattr(self, held) is None
        }

    def read(self, machine: Machine) -> Interactions:
        """Returns all reviews and the reviewed games. Raises UserError naming file, lines and cure."""

        def attributes(line: Line) -> Attributes:
            lists: Attributes = {name: [*map(one_text, line[name] or ())] for name in ("genres", "tags", "specs")}
            texts: Attributes = {name: readable(line[name]) for name in ("developer", "publisher", "release_date")}
            return {"title": plain_text(line["title"] or line["app_name"]), **lists, **texts}

        files = self.fetch(machine)
        return read_reviews(
            self,
            files,
            ("username", "product_id", "date", "rating"),
            Field("date", required=True, form="%Y-%m-%d"),
            {
                **dict.fromkeys(("genres", "tags", "specs"), Field("parts")),
                **dict.fromkeys(("title", "app_name", "developer", "publisher", "release_date"), Field("json")),
            },
            attributes,
            "The game has the following attributes:",
            literals=True,
            item_key="id",
        )
