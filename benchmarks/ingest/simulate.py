"""Files in the form of Amazon Reviews 2023 and of MovieLens-32M, of any size, with invented content."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_WORDS = re.findall(
    r"\S+",
    "works great product price quality easy bought love again box small daughter battery month screen colour gift "
    'arrived broken "perfect" café sturdy cheap return useful kitchen weeks don\'t n°1 recommend value size',
)
_BATCH = 50_000


def write_reviews(file: Path, lines: int, seed: int = 0) -> tuple[int, int]:
    """Write that many reviews in the order of neither users nor times; gives the numbers of users and items drawn from.

    Few users review often and few items are popular, as in Video Games: 1.6 reviews a user and 34 an item on average.
    """
    users, items = max(1, int(lines / 1.6)), max(1, lines // 34)
    rng = np.random.default_rng(seed)
    texts = _texts(rng, 5_000)
    with file.open("w", encoding="utf-8") as stream:
        for start in range(0, lines, _BATCH):
            count = min(_BATCH, lines - start)
            stream.writelines(_reviews(rng, count, users, items, texts))
    return users, items


def write_metadata(file: Path, items: int, seed: int = 1) -> None:
    """Write the metadata of all items."""
    rng = np.random.default_rng(seed)
    texts = _texts(rng, 5_000)
    with file.open("w", encoding="utf-8") as stream:
        for item in range(items):
            stream.write(_line(_metadata(rng, item, texts)))


def _reviews(rng: np.random.Generator, count: int, users: int, items: int, texts: list[str]) -> Iterator[str]:
    owners, things = _skewed(rng, count, users), _skewed(rng, count, items)
    ratings = rng.choice([1.0, 2.0, 3.0, 4.0, 5.0], size=count, p=[0.1, 0.05, 0.1, 0.2, 0.55])
    times = rng.integers(1_300_000_000_000, 1_690_000_000_000, size=count)
    said = rng.integers(len(texts), size=count)
    columns = (column.tolist() for column in (owners, things, ratings, times, said))
    for owner, thing, rating, time, text in zip(*columns, strict=True):
        yield _line(
            {
                "rating": rating,
                "title": texts[text][:30],
                "text": texts[text],
                "images": [],
                "asin": _asin(thing),
                "parent_asin": _asin(thing),
                "user_id": _user(owner),
                "timestamp": time,
                "helpful_vote": text % 7,
                "verified_purchase": bool(text % 5),
            }
        )


def _metadata(rng: np.random.Generator, item: int, texts: list[str]) -> dict[str, Any]:
    said = [texts[index] for index in rng.integers(len(texts), size=8)]
    return {
        "main_category": "Video Games",
        "title": f"{said[0][:60]} {item}",
        "average_rating": round(float(rng.uniform(1, 5)), 1),
        "rating_number": int(rng.integers(1, 5000)),
        "features": said[1:4],
        "description": said[4:6],
        "price": None if item % 3 else round(float(rng.uniform(1, 99)), 2),
        "images": [{"thumb": f"https://example.org/{item}.jpg", "large": f"https://example.org/{item}_l.jpg"}] * 3,
        "videos": [],
        "store": said[6][:12],
        "categories": ["Video Games", "Legacy Systems", said[7][:10]],
        "details": {"Package Dimensions": "7 x 5 x 0.6 inches", "Manufacturer": said[6][:12]},
        "parent_asin": _asin(item),
        "bought_together": None,
    }


def _skewed(rng: np.random.Generator, count: int, things: int) -> npt.NDArray[np.int64]:
    """Numbers below `things` (count,), of which low ones are frequent."""
    return np.minimum((things * rng.random(count) ** 3).astype(np.int64), things - 1)


def _texts(rng: np.random.Generator, count: int) -> list[str]:
    return [" ".join(rng.choice(_WORDS, size=int(size))) for size in rng.geometric(1 / 35, size=count)]


def _asin(item: int) -> str:
    return f"B{item * 2_654_435_761 % 2**32:09X}"


def _user(user: int) -> str:
    return f"A{user * 11_400_714_819_323_198_485 % 2**64:016X}{user:011X}"


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"


def write_amazon(folder: str, lines: int) -> None:
    """Write reviews.jsonl with that many lines, and metadata.jsonl."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    _, items = write_reviews(Path(folder) / "reviews.jsonl", lines)
    write_metadata(Path(folder) / "metadata.jsonl", items)


def write_movielens(folder: str, lines: int, seed: int = 2) -> None:
    """Write ratings.csv with that many ratings, by user and movie as published, and movies.csv.

    Users have 159 ratings on average and 20 at least, and there is a movie for every 365 ratings, as in MovieLens-32M.
    """
    import polars

    home, rng = Path(folder), np.random.default_rng(seed)
    home.mkdir(parents=True, exist_ok=True)
    movies, user, left = max(200, lines // 365), 0, lines
    with (home / "ratings.csv").open("wb") as stream:
        stream.write(b"userId,movieId,rating,timestamp\n")
        while left:
            lengths = 20 + rng.lognormal(4, 1.2, size=1_000).astype(np.int64)
            owners = np.repeat(np.arange(user + 1, user + 1_001), lengths)[:left]
            rows = polars.DataFrame(
                {
                    "user": owners,
                    "movie": 1 + _skewed(rng, len(owners), movies),
                    "rating": rng.integers(1, 11, size=len(owners)) / 2,
                    "time": rng.integers(800_000_000, 1_690_000_000, size=len(owners)),
                }
            )
            stream.write(rows.sort("user", "movie").write_csv(include_header=False).encode())
            user, left = user + 1_000, left - len(owners)
    names = [f'{movie},"Film {movie}, The ({1950 + movie % 73})",Drama|Comedy\n' for movie in range(1, movies + 1)]
    (home / "movies.csv").write_text("movieId,title,genres\n" + "".join(names))


WRITERS = {"amazon-2023": write_amazon, "movielens-32m": write_movielens}
