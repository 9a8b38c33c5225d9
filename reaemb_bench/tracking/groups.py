"""The run above all runs of an ablation, a sweep or a suite: whichever process comes first makes it."""

from __future__ import annotations

from typing import Any

from reaemb_bench.runs import Group
from reaemb_bench.tracking.tags import PARENT_TAG

GROUP_TAG = "reaemb_bench.group"

_TITLES = {"run": "runs", "ablation": "ablation", "trial": "sweep", "bench": "suite"}


def group_run(client: Any, experiment: str, group: Group) -> str:
    """Id of the group's run in this experiment, made where there is none.

    Two processes may make one each at the same moment: all take the older, and the other is deleted by who made it.
    """
    found = _oldest(client, experiment, group)
    if found is not None:
        return found
    tags = {GROUP_TAG: _identity(group), "kind": group.kind, "group": group.name}
    name = f"{_TITLES[group.kind]} {group.name}"
    own = str(client.create_run(experiment, tags=tags, run_name=name).info.run_id)
    # Its members come and go; it is never under way itself.
    client.set_terminated(own, "FINISHED")
    oldest = _oldest(client, experiment, group) or own
    if oldest != own:
        client.delete_run(own)
    return oldest


def stay_together(client: Any, experiment: str, group: Group, member: str, parent: str) -> None:
    """Move a member whose group's run turned out not to be the oldest one, and end the group's run anew."""
    oldest = group_run(client, experiment, group)
    if oldest != parent:
        client.set_tag(member, PARENT_TAG, oldest)
        if not client.search_runs([experiment], f"tags.`{PARENT_TAG}` = '{parent}'", max_results=1):
            client.delete_run(parent)
    client.set_terminated(oldest, "FINISHED")


def _oldest(client: Any, experiment: str, group: Group) -> str | None:
    found = client.search_runs([experiment], f"tags.`{GROUP_TAG}` = '{_identity(group)}'")
    runs = sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))
    return str(runs[0].info.run_id) if runs else None


def _identity(group: Group) -> str:
    return f"{group.kind}/{group.name}".replace("'", "_")
