"""Google Local: reviews of places in the United States until 2021, with times to the millisecond."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from reaemb_bench.core.machine import Machine
from reaemb_bench.data.interactions import About, Attributes, Interactions
from reaemb_bench.data.lines import Field
from reaemb_bench.data.published import PublishedFile
from reaemb_bench.data.sources.reviews import LAB, Line, ReviewFiles, read_reviews
from reaemb_bench.data.text import one_text, plain_text, readable

_TEXTS = ("address", "description", "price", "hours", "MISC")


class GoogleLocal(ReviewFiles):
    """Google Local reviews, 2021: a state by its name, or its files `review-<State>.json` and `meta-<State>.json`.

    Attributes: title, category, address, description, price, hours and offers. Its mean rating and number of reviews
    are of the day of publication and left out.
    """

    about: ClassVar[About] = About(
        "https://mcauleylab.ucsd.edu/public_datasets/gdrive/googlelocal/",
        "published for research; no licence stated, citation asked for",
        "Jiacheng Li, Jingbo Shang, Julian McAuley, UCTopic, ACL 2022; An Yan, Zhankui He, Jiacheng Li, Tianyang "
        "Zhang, Julian McAuley, Personalized Showcases, SIGIR 2023",
        download="by state",
        minutes="4 a GB",
    )

    state: str = ""
    """State whose files are downloaded, such as `Vermont` or `New_York`; else give `reviews` and `metadata`."""
    preset: Literal["all", "10-core"] = "10-core"
    """What is downloaded: every review, or those of users and places with 10 or more, as the publisher filtered."""

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        if not self.state and not (self.reviews and self.metadata):
            raise ValueError('name a state, as in state = "Vermont", or give both reviews and metadata')
        return self

    @property
    def data_name(self) -> str:
        """The name in tables."""
        return super().data_name if self.name or self.reviews else f"google-local-{self.state}"

    def identity(self) -> dict[str, Any]:
        """Contents alone: state and preset choose files, of which the fingerprint holds what they are."""
        return {**super().identity(), "state": "", "preset": ""}

    def published(self) -> Mapping[str, PublishedFile]:
        """The state's files, without those that settings name."""
        core = "_10" if self.preset == "10-core" else ""
        names = {"reviews": f"review-{self.state}{core}", "metadata": f"meta-{self.state}"}
        return {
            held: PublishedFile(tuple(f"{home}/gdrive/googlelocal/{name}.json.gz" for home in LAB))
            for held, name in names.items()
            if getattr(self, held) is None
        }

    def read(self, machine: Machine) -> Interactions:
        """Returns all reviews and the reviewed places. Raises UserError naming file, lines and cure."""

        def attributes(line: Line) -> Attributes:
            address, description, price, hours, offers = (readable(line[name] or "") for name in _TEXTS)
            return {
                "title": plain_text(line["name"]),
                "category": [*map(one_text, line["category"] or ())],
                "address": address,
                "description": description,
                "price": price,
                "hours": hours,
                "offers": offers,
            }

        return read_reviews(
            self,
            self.fetch(machine),
            ("user_id", "gmap_id", "time", "rating"),
            Field("whole", required=True, unit="ms"),
            {"name": Field("text"), "category": Field("parts"), **dict.fromkeys(_TEXTS, Field("json"))},
            attributes,
            "The place has the following attributes:",
        )
