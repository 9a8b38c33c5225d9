"""Time and test SASRec as RecBole trains and evaluates it.

RecBole's epoch is another one than ours: its data set turns every prefix of a history into a row that predicts one
item, each padded to `max_length`, so that a history of n training interactions costs n - 1 rows.
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.measuring import Spent, clocked, limit_threads, written
from benchmarks.peers.settings import Best, Settings, answer, arguments, epoch, evaluation, gains, histories

NAME = "interactions"


class FirstBatches:
    """A loader's first batches; everything else is the loader's."""

    def __init__(self, loader: Any, steps: int) -> None:
        self.loader = loader
        self.steps = steps

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self.loader), self.steps)

    def __len__(self) -> int:
        return min(self.steps, len(self.loader))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


def main() -> None:
    """Print the result as JSON."""
    settings = arguments(__doc__.splitlines()[0], batch_size=2048, heads=2, dropout=0.5)
    limit_threads(settings.threads)
    out = settings.out and settings.out.absolute()
    if settings.vectors is not None:
        settings = replace(settings, vectors=settings.vectors.absolute())
    with tempfile.TemporaryDirectory() as folder:
        write_atomic_file(settings.interactions, Path(folder))
        # RecBole writes logs to the working folder.
        os.chdir(folder)
        result = measure(settings, Path(folder))
        os.chdir("/")
    print(written(result, out))


def write_atomic_file(interactions: Path, folder: Path) -> None:
    """RecBole's own format, the position as the time."""
    (folder / NAME).mkdir()
    with (folder / NAME / f"{NAME}.inter").open("w", encoding="utf-8") as lines:
        lines.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for user, items in histories(interactions).items():
            lines.writelines(f"{user}\t{item}\t{position}\n" for position, item in enumerate(items))


def configuration(settings: Settings, folder: Path) -> dict[str, Any]:
    """RecBole's names of our settings."""
    return {
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "group_by": "user", "order": "TO", "mode": "full"},
        "MAX_ITEM_LIST_LENGTH": settings.max_length,
        "train_neg_sample_args": None,
        "loss_type": "CE",
        "hidden_size": settings.hidden,
        "inner_size": 2 * settings.hidden,
        "n_layers": settings.blocks,
        "n_heads": settings.heads,
        "hidden_dropout_prob": settings.dropout,
        "attn_dropout_prob": settings.dropout,
        "learning_rate": settings.learning_rate,
        "train_batch_size": settings.batch_size,
        "epochs": settings.epochs,
        "stopping_step": settings.patience,
        "metrics": ["Hit", "NDCG"],
        "topk": [10],
        "valid_metric": "NDCG@10",
        "seed": settings.seed,
        "use_gpu": False,
        "show_progress": False,
    }


def measure(settings: Settings, folder: Path) -> dict[str, Any]:
    """Train, evaluate, and say what was measured."""
    import recbole
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.sequential_recommender import SASRec
    from recbole.trainer import Trainer
    from recbole.utils import init_seed

    torch.set_num_threads(settings.threads)
    config = Config(model="SASRec", dataset=NAME, config_dict=configuration(settings, folder))
    init_seed(config["seed"], config["reproducibility"])
    train, valid, test = data_preparation(config, create_dataset(config))
    model = SASRec(config, train.dataset)
    if settings.vectors is not None:
        hold(model, train.dataset, settings.vectors)
    trainer = Trainer(config, model)
    loader = train if settings.max_steps is None else FirstBatches(train, settings.max_steps)
    epochs, best = timed_epochs(trainer), Best()

    def validated(_: int, value: float) -> None:
        best.offer(value, lambda: copy.deepcopy(model.state_dict()))

    trainer.fit(loader, None if settings.max_steps else valid, verbose=False, saved=False, callback_fn=validated)
    if best.kept:
        model.load_state_dict(best.kept)
    with clocked() as spent:
        theirs = trainer.evaluate(test, load_best_model=False)
    users = len(test.dataset)
    return answer(
        "RecBole",
        recbole.__version__,
        settings,
        training=epoch(
            epochs,
            len(loader),
            len(train),
            holds=f"{len(train.dataset)} rows, one for each prefix, padded to {settings.max_length}, one target each",
        ),
        testing=evaluation(spent, users, does="RecBole's own: whole catalogue, seen items not excluded, 10 best"),
        test={
            **best.facts(),
            **ranks_without_seen(model, test, users),
            "ndcg@10 of RecBole, seen items not excluded": float(theirs["ndcg@10"]),
            "hr@10 of RecBole, seen items not excluded": float(theirs["hit@10"]),
        },
    )


def hold(model: Any, dataset: Any, file: Path) -> None:
    """Fixes the item vectors at the principal components of those in a file, for RecBole's SASRec reads no others.

    Centred, and with the root mean square that RecBole's own start has.
    """
    import numpy as np
    import torch

    given = np.load(file, allow_pickle=False)
    by_id = dict(zip(given["ids"].tolist(), given["vectors"], strict=True))
    tokens = dataset.field2id_token["item_id"][1:]
    vectors = np.stack([by_id[token] for token in tokens])
    left, singular, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    width = model.item_embedding.weight.shape[1]
    components = left[:, :width] * singular[:width]
    components *= model.initializer_range / np.sqrt(np.square(components).mean())
    with torch.no_grad():
        model.item_embedding.weight[1:] = torch.from_numpy(components)
    model.item_embedding.weight.requires_grad_(False)


def timed_epochs(trainer: Any) -> list[Spent]:
    """A list that receives the time of each epoch the trainer runs."""
    epochs: list[Spent] = []
    train_epoch = trainer._train_epoch

    def timed(*args: Any, **kwargs: Any) -> Any:
        with clocked() as spent:
            loss = train_epoch(*args, **kwargs)
        epochs.append(spent)
        return loss

    trainer._train_epoch = timed
    return epochs


def ranks_without_seen(model: Any, test: Any, users: int) -> dict[str, float]:
    """NDCG@10 and HR@10 under our protocol: the items of the history that RecBole reads leave the catalogue.

    Items with exactly the target's score are ranked below it.
    """
    import torch

    model.eval()
    ranks: list[int] = []
    with torch.no_grad():
        for interaction, _, rows, targets in test:
            scores = model.full_sort_predict(interaction)
            wanted = scores[rows, targets]
            scores.scatter_(1, interaction["item_id_list"], -torch.inf)
            scores[:, 0] = -torch.inf
            ranks += (scores[rows] > wanted[:, None]).sum(1).tolist()
    return gains(ranks, users)


if __name__ == "__main__":
    main()
