"""Time and test SASRec as RecTools trains it and recommends with it.

RecTools' epoch is like ours, one row a user with a target at each position, but each history is padded to `max_length`
and logits are computed at the padding too.
"""

from __future__ import annotations

import copy
import logging
import time
import warnings
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import Spent, clocked, limit_threads, written
from benchmarks.peers.settings import Best, Settings, answer, arguments, epoch, evaluation, gains, histories

if TYPE_CHECKING:
    import pandas as pd


def main() -> None:
    """Print the result as JSON."""
    settings = arguments(__doc__.splitlines()[0], batch_size=128, heads=2, dropout=0.2)
    limit_threads(settings.threads)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    print(written(measure(settings), settings.out))


def measure(settings: Settings) -> dict[str, Any]:
    """Train, evaluate, and say what was measured."""
    import rectools
    import torch
    from pytorch_lightning import seed_everything
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    torch.set_num_threads(settings.threads)
    seed_everything(settings.seed, verbose=False)
    all_items = histories(settings.interactions)
    judged = [user for user, items in all_items.items() if len(items) > 2]
    epochs: list[Spent] = []
    model = SASRecModel(
        n_factors=settings.hidden,
        n_blocks=settings.blocks,
        n_heads=settings.heads,
        session_max_len=settings.max_length,
        dropout_rate=settings.dropout,
        batch_size=settings.batch_size,
        lr=settings.learning_rate,
        loss="softmax",
        get_trainer_func=lambda: lightning_trainer(settings, epochs),
        recommend_torch_device="cpu",
    )
    training = Dataset.construct(rows_before(all_items, last=2))
    best = fitted(model, training, {user: all_items[user][-2] for user in judged}, settings)
    loader = model.data_preparator.get_dataloader_train()
    steps = len(loader)
    context = Dataset.construct(rows_before(all_items, last=1))
    with clocked() as spent:
        recommended = model.recommend(judged, context, k=10, filter_viewed=True)
    return answer(
        "RecTools",
        rectools.__version__,
        settings,
        training=epoch(
            epochs,
            min(steps, settings.max_steps or steps),
            steps,
            holds=f"{len(loader.dataset)} rows, one a user, padded to {settings.max_length}, a target at each position",
        ),
        testing=evaluation(
            spent, len(judged), does="RecTools' own recommend: catalogue without seen items, 10 best, as a data frame"
        ),
        test={
            **best.facts(),
            **gains(ranks(recommended, {user: all_items[user][-1] for user in judged}), len(judged)),
        },
    )


def fitted(model: Any, training: Any, targets: dict[str, str], settings: Settings) -> Best:
    """Train epoch by epoch until validation stops it, and put the best epoch's weights into the model."""
    best = Best()
    for _ in range(settings.epochs):
        model.fit_partial(training, min_epochs=1, max_epochs=1)
        if settings.max_steps is not None:
            continue
        recommended = model.recommend(list(targets), training, k=10, filter_viewed=True)
        value = gains(ranks(recommended, targets), len(targets))["ndcg@10"]
        best.offer(value, lambda: copy.deepcopy(model.torch_model.state_dict()))
        if best.epochs - best.epoch >= settings.patience:
            break
    if best.kept:
        model.torch_model.load_state_dict(best.kept)
    return best


def rows_before(all_items: dict[str, list[str]], *, last: int) -> pd.DataFrame:
    """The interactions without each user's `last` ones; users with fewer than three keep all. Times are positions."""
    import pandas as pd
    from rectools import Columns

    kept = {user: items[:-last] if len(items) > 2 else items for user, items in all_items.items()}
    flat = [(user, item, position) for user, items in kept.items() for position, item in enumerate(items)]
    frame = pd.DataFrame(flat, columns=[Columns.User, Columns.Item, Columns.Datetime])
    frame[Columns.Datetime] = pd.to_datetime(frame[Columns.Datetime], unit="D")
    frame[Columns.Weight] = 1.0
    return frame


def lightning_trainer(settings: Settings, epochs: list[Spent]) -> Any:
    """The trainer that RecTools itself would make, but with a clock and a limit of steps."""
    from pytorch_lightning import Callback, Trainer

    class Clock(Callback):
        """Appends the time of each epoch, the loading of its batches included."""

        started = (0.0, 0.0)

        def on_train_epoch_start(self, *_: Any) -> None:
            """Start."""
            self.started = time.perf_counter(), time.process_time()

        def on_train_epoch_end(self, *_: Any) -> None:
            """Stop."""
            wall, cpu = self.started
            epochs.append(Spent(time.perf_counter() - wall, time.process_time() - cpu))

    return Trainer(
        max_epochs=settings.epochs,
        min_epochs=settings.epochs,
        limit_train_batches=settings.max_steps,
        callbacks=[Clock()],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
        accelerator="cpu",
        devices=1,
    )


def ranks(recommended: pd.DataFrame, targets: dict[str, str]) -> list[int]:
    """The ranks, from 0, of the targets that are among the recommended."""
    from rectools import Columns

    rows = zip(recommended[Columns.User], recommended[Columns.Item], recommended[Columns.Rank], strict=True)
    return [int(rank) - 1 for user, item, rank in rows if targets[user] == item]


if __name__ == "__main__":
    main()
