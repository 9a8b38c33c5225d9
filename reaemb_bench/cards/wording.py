"""What a card says in the same words on the screen and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from reaemb_bench.cards.figures import MISSING, percent
from reaemb_bench.cards.sequentiality import Loss, Sequentiality
from reaemb_bench.data.interactions import About

TITLES: Mapping[str, str] = {
    "size": "Size",
    "users": "Users",
    "items": "Items",
    "targets": "Held-out targets",
    "texts": "Texts",
}
SOURCE = 'the idea is that of Klenitskiy et al., "Does It Look Sequential?", RecSys 2024'


def terms(about: About) -> dict[str, str]:
    """Home, licence and citation, as far as the source states them."""
    return {
        "home": about.home or "not stated",
        "licence": about.licence or "not stated; find out before you pass the data on",
        "citation": about.citation or "not stated",
    }


def order_matters(found: Sequentiality | None) -> list[str]:
    """What random order costs, a line a metric, after a line that says how it was measured."""
    if found is None:
        return ["too few validation targets to tell"]
    users = f"{found.users:,}" if found.users == found.of else f"{found.users:,} of {found.of:,}"
    how = (
        f"last-item-knn on {users} validation targets, whole catalogue: histories as they are against histories in "
        f"random order (mean of {found.shuffles} shuffles); {SOURCE}"
    )
    return [how, *(f"{name.upper()}: {_loss(loss)}" for name, loss in found.by_metric.items())]


def _loss(loss: Loss) -> str:
    lost = MISSING if loss.share is None else percent(loss.share)
    return (
        f"{loss.ordered:.4f} in order, {loss.shuffled:.4f} ± {loss.sd:.4f} shuffled, {lost} lost "
        f"(95 % interval of the difference {loss.low:+.4f} to {loss.high:+.4f})"
    )
