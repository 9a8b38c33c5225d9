"""A made-up shop whose item texts tell what its customers want: small, instant, and the same on every machine."""

from __future__ import annotations

import numpy as np
import polars
from pydantic import Field

from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.data.interactions import SCHEMA, Attributes, Interactions

# Department, category, adjectives, things and brands of each cluster of items.
_THEMES = (
    ("Kitchen", "Tea", "Smoky, Jasmine, Oolong, Green", "Tea Tin, Teapot, Infuser", "Leafwell, Kettler"),
    ("Outdoor", "Hiking", "Alpine, Summit, Trail, Ridge", "Boots, Backpack, Trekking Poles", "Norwand, Pathos"),
    ("Music", "Guitars", "Acoustic, Electric, Steel, Fretted", "Guitar Strings, Capo, Guitar Strap",
     "Strumm, Pluck & Sons"),
    ("Kitchen", "Baking", "Sourdough, Rye, Crusty, Buttery", "Bread Pan, Dough Scraper, Cake Mould",
     "Krume, Ovenbird"),
    ("Science", "Astronomy", "Lunar, Stellar, Orbital, Nebula", "Telescope, Star Chart, Eyepiece",
     "Perihel, Nightglass"),
    ("Garden", "Plants", "Lavender, Tomato, Fern, Rose", "Seeds, Planter, Potting Soil", "Grünhold, Rootline"),
    ("Sport", "Cycling", "Carbon, Road, Gravel, Sprint", "Saddle, Handlebar Tape, Bike Chain", "Velocio, Spoke"),
    ("Art", "Painting", "Watercolour, Acrylic, Canvas, Gouache", "Brush Set, Easel, Palette",
     "Pigmento, Atelier Nine"),
)  # fmt: skip
_STYLES = ("Rustic", "Minimal", "Vintage", "Bold", "Pastel", "Nordic")


class Simulated(Component):
    """Customers who mostly stay within one cluster of items, and mostly buy what follows their last purchase there.

    Popularity within a cluster falls as 1 / rank ** zipf. Titles, categories, brands and descriptions are made of
    words of the item's cluster, so that a text embedding knows what counts know. Two further structures can be planted,
    each with a strength, 0 for none: `tastes`, which texts explain even of items that nobody has bought yet, and
    `complements`, pairs of clusters that go together although their texts have no word in common.
    """

    users: int = Field(default=300, ge=1)
    """Number of users."""
    items: int = Field(default=120, ge=2)
    """Number of items."""
    clusters: int = Field(default=6, ge=1, le=len(_THEMES))
    """Number of item clusters, each with words of its own."""
    minimum_length: int = Field(default=5, ge=1)
    """Fewest interactions of a user."""
    mean_length: float = Field(default=12.0, ge=1)
    """Mean number of interactions of a user, beyond which lengths fall off geometrically."""
    zipf: float = Field(default=0.8, ge=0)
    """How steeply popularity falls within a cluster."""
    loyalty: float = Field(default=0.8, ge=0, le=1)
    """Probability that the next item comes from the same cluster as the last."""
    habit: float = Field(default=0.5, ge=0, le=1)
    """Probability that, within a cluster, the next item is the one that follows the last on its shelf."""
    tastes: float = Field(default=0.0, ge=0, le=20)
    """How much each customer prefers items of one style, which stands in their texts: such an item is exp(tastes) times
    as likely as another one of its cluster and popularity. 0 gives items no style."""
    complements: float = Field(default=0.0, ge=0, le=1)
    """Probability that a customer who leaves a cluster goes to the one that complements it, and not to any other."""
    seed: int = 0
    """Decides the shop and its customers, independently of the recipe's seeds."""

    def read(self, machine: Machine) -> Interactions:
        """Returns all interactions and item attributes, computed anew."""
        if self.items < self.clusters:
            raise UserError(f"simulated: {self.clusters} clusters need at least as many items, not {self.items}")
        rng = np.random.default_rng(self.seed)
        # Cluster and popularity are spread over the item numbers at random, so that numbers tell nothing.
        cluster = rng.permutation(np.arange(self.items) % self.clusters)
        # A stream of their own, so that the other structures do not depend on it.
        planted = np.random.default_rng([self.seed, 1])
        style = planted.integers(len(_STYLES), size=self.items)
        favourite = planted.integers(len(_STYLES), size=self.users)
        shelves = [rng.permutation(np.flatnonzero(cluster == number)) for number in range(self.clusters)]
        weights = [np.arange(1, len(shelf) + 1, dtype=np.float64) ** -self.zipf for shelf in shelves]
        # By style of the customer, then by shelf.
        liked = [
            [
                weight * np.exp(self.tastes * (style[shelf] == one))
                for shelf, weight in zip(shelves, weights, strict=True)
            ]
            for one in range(len(_STYLES) if self.tastes else 1)
        ]
        chances = [[weight / weight.sum() for weight in of_style] for of_style in liked]
        extra = max(self.mean_length - self.minimum_length, 0.0)
        lengths = self.minimum_length + rng.geometric(1 / (1 + extra), size=self.users) - 1
        histories: list[list[str]] = []
        for user, length in enumerate(lengths):
            own_chances = chances[favourite[user] if self.tastes else 0]
            histories.append([])
            shelf = position = 0
            for step in range(int(length)):
                moves = step == 0 or rng.random() >= self.loyalty
                if step and moves and self.complements and rng.random() < self.complements:
                    shelf = min(shelf ^ 1, self.clusters - 1)
                elif moves:
                    shelf = int(rng.integers(self.clusters))
                if not moves and rng.random() < self.habit:
                    position = (position + 1) % len(shelves[shelf])
                else:
                    position = int(rng.choice(len(shelves[shelf]), p=own_chances[shelf]))
                histories[-1].append(f"item{shelves[shelf][position]}")
        days = rng.integers(365, size=self.users)
        rows = [
            (f"user{user}", item, 1_577_836_800 + 86_400 * (int(days[user]) + step), None)
            for user, history in enumerate(histories)
            for step, item in enumerate(history)
        ]
        frame = polars.DataFrame(rows, schema=SCHEMA, orient="row")
        items: dict[str, Attributes] = {}
        for item in range(self.items):
            department, category, *words = _THEMES[cluster[item]]
            adjectives, things, brands = (part.split(", ") for part in words)
            first, second = (str(word) for word in rng.choice(adjectives, size=2, replace=False))
            thing, brand = str(rng.choice(things)), str(rng.choice(brands))
            items[f"item{item}"] = {
                "title": f"{brand} {first} {thing} No. {item + 1}",
                "category": [department, category],
                "brand": brand,
                "price": f"{rng.integers(4, 90)}.{rng.integers(10)}9",
                "description": "A " + f"{first}, {second} {thing} for everyone who loves {category}".lower(),
            }
            if self.tastes:
                items[f"item{item}"]["style"] = _STYLES[style[item]]
        return Interactions("simulated", frame, items, "The product has the following attributes:", unit="s")
