"""Co-occurrence and candidates the plain way: two loops over each history, and sets of items for each list."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from random import Random

Met = list[dict[int, int]]


def count(histories: Sequence[Sequence[int]], items: int) -> Met:
    """How often each item met each other: pairs of positions of two different items in a history."""
    met: Met = [defaultdict(int) for _ in range(items)]
    for history in histories:
        for position, first in enumerate(history):
            for second in history[position + 1 :]:
                if first != second:
                    met[first][second] += 1
                    met[second][first] += 1
    return met


def draw(met: Met, positives: int, candidates: int, seed: int) -> dict[int, list[int]]:
    """For each item its most frequent companions, ties at random, filled up with items that it never met."""
    chance = Random(seed)
    everything = set(range(len(met)))
    lists = {}
    for item, companions in enumerate(met):
        strangers = everything - companions.keys() - {item}
        ranked = sorted(companions, key=lambda other: (-companions[other], chance.random()))[:positives]
        if ranked and len(strangers) >= candidates - len(ranked):
            lists[item] = ranked + chance.sample(list(strangers), candidates - len(ranked))
    return lists


def draw_by_rejection(met: Met, positives: int, candidates: int, seed: int) -> dict[int, list[int]]:
    """The same lists, but strangers are drawn from all items until enough of them are some: no set of them is made."""
    chance = Random(seed)
    lists = {}
    for item, companions in enumerate(met):
        ranked = sorted(companions, key=lambda other: (-companions[other], chance.random()))[:positives]
        if not ranked or len(met) - 1 - len(companions) < candidates - len(ranked):
            continue
        drawn: list[int] = []
        while len(drawn) < candidates - len(ranked):
            other = chance.randrange(len(met))
            if other != item and other not in companions and other not in drawn:
                drawn.append(other)
        lists[item] = ranked + drawn
    return lists
