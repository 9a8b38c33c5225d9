"""The reinforcement steps on a tiny encoder: they learn what is planted, repeat exactly, and see what they may see."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from reaemb_bench.core.artifacts import Corpus, Encoder, Sequences, TestTargets
from reaemb_bench.core.component import Context, Progress
from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import signature
from reaemb_bench.core.registry import build
from reaemb_bench.data.cooccurrence import cooccurrence
from reaemb_bench.encoder.folder import REASONER, LanguageModel, open_encoder
from reaemb_bench.encoder.shared_prefix import Prefix
from reaemb_bench.encoder.thought_model import ThoughtModel
from reaemb_bench.rl.candidates import draw_candidates
from reaemb_bench.rl.crrl import Judge, Learner, Reinforce, ReinforceLeakyPaper, batches
from reaemb_bench.rl.prompt_cache import Prompts

ITEMS, CLUSTERS, USERS = 24, 6, 60
WORDS = ["amber", "basil", "cedar", "delta", "ember", "fjord", "grape", "hazel", "ivory", "jade", "koala", "lemon"]
PLANTED = {"epochs": 12, "warmup": 0, "learning_rate": 1e-3, "noise": 0.3}


@dataclass
class Watched:
    """A context's memory."""

    folder: Path
    micro_batch: int | None = None
    ticks: list[Progress] = field(default_factory=list)
    notes: dict[str, float | int | str] = field(default_factory=dict)

    def context(self, seed: int = 1) -> Context:
        self.folder.mkdir(exist_ok=True)
        machine = Machine(device="cpu", store=self.folder, micro_batch=self.micro_batch)
        return Context(seed, machine, self.ticks.append, self.notes.update, self.folder)

    def measured(self, name: str) -> list[float]:
        return [tick.values[name] for tick in self.ticks if name in tick.values]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """Users stay inside one cluster of four items; the item's text names its cluster."""
    generator = np.random.default_rng(0)
    texts = tuple(
        f"title is {' '.join(generator.choice(WORDS, 2))}; category is {WORDS[item % CLUSTERS]}"
        for item in range(ITEMS)
    )
    bought = [generator.choice(np.arange(user % CLUSTERS, ITEMS, CLUSTERS), 3, replace=False) for user in range(USERS)]
    training = Sequences(np.concatenate(bought).astype(np.int32), np.arange(0, 3 * USERS + 1, 3, dtype=np.int64))
    keys = tuple(f"i{item}" for item in range(ITEMS))
    return Corpus("planted", training, keys, tuple(f"u{user}" for user in range(USERS)), "", texts, keys)


@pytest.fixture(scope="module")
def encoder(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return made_encoder(corpus, tmp_path_factory.mktemp("llm"), "latent-thought")


def made_encoder(corpus: Corpus, folder: Path, reasoner: str, before: str = "") -> Encoder:
    step = build(
        "step",
        {
            "use": "llm",
            "backbone": {"use": "tiny", "hidden": 32, "vocabulary": 300},
            "reasoner": reasoner,
            "pooling": "thought" if reasoner != "none" else "last",
            "prefix": before,
            "system_prompt": before,
        },
    )
    assert isinstance(step, LanguageModel)
    return step.run(corpus, Watched(folder).context())


def weights(encoder: Encoder) -> dict[str, torch.Tensor]:
    return load_file(encoder.folder / REASONER)


def test_the_mean_reward_of_a_planted_problem_rises(corpus: Corpus, encoder: Encoder, tmp_path: Path) -> None:
    watched = Watched(tmp_path / "run")
    made = Reinforce(**PLANTED).run(corpus, encoder, watched.context())
    epoch = ITEMS // 4
    assert [tick.done for tick in watched.ticks if tick.unit == "steps"] == [*range(1, 12 * epoch + 1)]
    # Every epoch rewards every item once against the same candidates.
    rewards = watched.measured("clean_reward")
    assert np.mean(rewards[-epoch:]) > np.mean(rewards[:epoch]) + 0.4
    assert watched.measured("dead_groups") == [0.0] * 12 * epoch
    assert watched.notes["trained_parameters"] == sum(tensor.numel() for tensor in weights(made).values())
    assert watched.notes["skipped_items"] == 0
    assert float(watched.notes["prompt_cache_mb"]) > 0


def test_it_repeats_bit_by_bit(corpus: Corpus, encoder: Encoder, tmp_path: Path) -> None:
    settings = Reinforce(steps=5, warmup=0)
    first, second = (settings.run(corpus, encoder, Watched(tmp_path / name).context()) for name in "ab")
    assert (first.folder / REASONER).read_bytes() == (second.folder / REASONER).read_bytes()
    other = settings.run(corpus, encoder, Watched(tmp_path / "c").context(seed=2))
    assert (first.folder / REASONER).read_bytes() != (other.folder / REASONER).read_bytes()


def test_only_the_reasoner_changes(corpus: Corpus, encoder: Encoder, tmp_path: Path) -> None:
    made = Reinforce(steps=2, warmup=0).run(corpus, encoder, Watched(tmp_path / "run").context())
    for file in encoder.folder.rglob("*"):
        if file.is_file():
            same = (made.folder / file.relative_to(encoder.folder)).read_bytes() == file.read_bytes()
            assert same == (file.name != REASONER), file


def test_no_step_leaves_the_reasoner_as_it_was(corpus: Corpus, encoder: Encoder, tmp_path: Path) -> None:
    watched = Watched(tmp_path / "run")
    made = Reinforce(steps=0).run(corpus, encoder, watched.context())
    assert (made.folder / REASONER).read_bytes() == (encoder.folder / REASONER).read_bytes()
    assert not [tick for tick in watched.ticks if tick.total]


@pytest.mark.parametrize("policy", ["gaussian", "token-logprob-paper"])
def test_room_for_prompts_changes_nothing_but_the_work(
    policy: str, corpus: Corpus, encoder: Encoder, tmp_path: Path
) -> None:
    seen = {}
    for name, gigabytes in {"all": 1.0, "some": 8e-5, "none": 0.0}.items():
        watched = seen[name] = Watched(tmp_path / name)
        table = {"policy": policy, "steps": 4, "warmup": 0, "cache_gb": gigabytes}
        step = build("step", {"use": "reinforce", **table})
        assert isinstance(step, Reinforce)
        made = step.run(corpus, encoder, watched.context())
        assert (made.folder / REASONER).read_bytes() == (tmp_path / "all/encoder" / REASONER).read_bytes()
        assert watched.ticks[-4:] == seen["all"].ticks[-4:]
    facts = {name: watched.notes for name, watched in seen.items()}
    assert facts["none"]["prompt_cache_mb"] == 0
    assert not (tmp_path / "none" / "prompts-0").exists()
    assert float(facts["all"]["prompt_cache_mb"]) > 0.08 >= float(facts["some"]["prompt_cache_mb"]) > 0
    assert facts["all"]["prompts_without_room"] == 0
    assert 0 < int(facts["some"]["prompts_without_room"]) < ITEMS
    assert facts["none"]["prompts_without_room"] == ITEMS


def test_the_micro_batch_changes_no_more_than_rounding(corpus: Corpus, encoder: Encoder, tmp_path: Path) -> None:
    usual, cramped = Watched(tmp_path / "usual"), Watched(tmp_path / "cramped", micro_batch=3)
    for watched in (usual, cramped):
        Reinforce(steps=4, warmup=0).run(corpus, encoder, watched.context())
    assert usual.measured("reward") == pytest.approx(cramped.measured("reward"), abs=1e-3)


def test_room_for_prompts_is_no_part_of_what_a_step_is() -> None:
    assert Reinforce(cache_gb=1.0).identity() == Reinforce().identity()
    assert Reinforce(noise=0.2).identity() != Reinforce().identity()


@pytest.mark.parametrize("before", ["", "All prompts begin with this sentence."])
@pytest.mark.parametrize("reasoner", ["latent-thought", "latent-thought-paper"])
def test_kept_prompts_are_what_the_model_reads(before: str, reasoner: str, corpus: Corpus, tmp_path: Path) -> None:
    model = open_encoder(made_encoder(corpus, tmp_path / "llm", reasoner, before), Machine(device="cpu"))
    token_rows = model.tokenize(corpus.texts)
    prompts = Prompts(model, token_rows, np.arange(ITEMS), tmp_path / "cache", 1e9, 5)
    chosen = np.array([7, 3, 20, 3])
    kept = prompts(chosen)
    fresh = model.prefix(model.tokens([token_rows[item] for item in chosen]), share=False)
    assert torch.equal(kept.positions[kept.mask.bool()], fresh.positions[fresh.mask.bool()])
    torch.testing.assert_close(kept.states[kept.mask.bool()], fresh.states[fresh.mask.bool()], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.think(kept), model.think(fresh), rtol=1e-4, atol=1e-5)
    part = kept.part(1, 3)
    torch.testing.assert_close(
        model.complete(part, model.think(part)), model.complete(fresh, model.think(fresh))[1:3], rtol=1e-4, atol=1e-5
    )


def test_a_step_completes_each_candidate_and_each_rollout_once(
    corpus: Corpus, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    completed: list[int] = []
    complete = ThoughtModel.complete

    def counted(model: ThoughtModel, prefix: Prefix, thoughts: torch.Tensor) -> torch.Tensor:
        completed.append(len(thoughts))
        return complete(model, prefix, thoughts)

    monkeypatch.setattr(ThoughtModel, "complete", counted)
    in_steps = []
    step = Learner.step

    def stepped(*arguments: Any) -> dict[str, float]:
        before = sum(completed)
        values = step(*arguments)
        in_steps.append(sum(completed) - before)
        return values

    monkeypatch.setattr(Learner, "step", stepped)
    settings = Reinforce(steps=1)
    settings.run(corpus, encoder, Watched(tmp_path / "run").context())
    drawn = draw_candidates(cooccurrence(corpus.training, ITEMS), 1, settings.candidates, seed=1)
    [chosen] = batches(len(drawn.items), settings, seed=1)
    distinct = len(np.unique(drawn.lists[chosen]))
    assert distinct < drawn.lists[chosen].size
    assert in_steps == [distinct + settings.rollouts_per_step]


def test_the_gaussian_policy_learns_without_the_language_model(
    corpus: Corpus, encoder: Encoder, tmp_path: Path
) -> None:
    passes = {}
    for policy in ("gaussian", "token-logprob-paper"):
        model = open_encoder(encoder, Machine(device="cpu"))
        step = build("step", {"use": "reinforce", "policy": policy, "iterations": 3})
        assert isinstance(step, Reinforce)
        learner = Learner(model, step)
        prefix = model.prefix(model.tokens(model.tokenize(corpus.texts[:4])))
        noise = learner.noise(4, torch.Generator().manual_seed(0)).flatten(0, 1)
        judge = Judge.of(step, torch.randn(4, 10, 32), torch.eye(10)[:1].expand(4, -1))
        sample = learner.sample(prefix, noise, judge)
        passed: list[object] = []
        model.causal_lm.get_decoder().register_forward_hook(lambda *_, passed=passed: passed.append(_))
        assert len(list(learner.losses(sample))) == 3
        passes[policy] = len(passed)
    assert passes == {"gaussian": 0, "token-logprob-paper": 3}


def test_an_epoch_rolls_every_item_out_once_and_epochs_differ() -> None:
    settings = Reinforce(epochs=2)
    drawn = batches(10, settings, seed=3)
    assert [len(each) for each in drawn] == [4, 4, 2, 4, 4, 2]
    first, second = (np.concatenate(drawn[start : start + 3]).tolist() for start in (0, 3))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    # What a step rolls out does not depend on how long the stage is.
    shorter = batches(10, Reinforce(steps=4), seed=3)
    assert all(np.array_equal(one, other) for one, other in zip(shorter, drawn, strict=False))
    assert len(shorter) == 4


def held_out_targets(corpus: Corpus, shift: int) -> TestTargets:
    users = np.arange(USERS, dtype=np.int64)
    targets = ((users + shift) % ITEMS).astype(np.int32)
    return TestTargets(users, targets, np.zeros((USERS, 0), dtype=np.int32), corpus.training)


def test_test_items_change_the_leaky_step_and_the_sound_one_cannot_be_handed_any(
    corpus: Corpus, encoder: Encoder, tmp_path: Path
) -> None:
    wants, _, _ = signature(Reinforce(), "crrl")
    assert set(wants.values()) == {Corpus, Encoder}
    assert Reinforce().data_access == "training"
    leaky = ReinforceLeakyPaper(steps=3, warmup=0)
    assert leaky.leaks
    made = [
        leaky.run(corpus, held_out_targets(corpus, shift), encoder, Watched(tmp_path / str(shift)).context())
        for shift in (1, 2)
    ]
    first, second = (weights(each) for each in made)
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_an_encoder_without_thought_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    plain = made_encoder(corpus, tmp_path / "llm", "none")
    with pytest.raises(UserError, match="leave this step out"):
        Reinforce().run(corpus, plain, Watched(tmp_path / "run").context())


def test_more_candidates_than_strangers_are_refused(corpus: Corpus, encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lower reinforce\.candidates"):
        Reinforce(candidates=ITEMS).run(corpus, encoder, Watched(tmp_path / "run").context())


def test_numbers_that_are_not_finite_stop_the_run_and_name_the_items(
    corpus: Corpus, encoder: Encoder, tmp_path: Path
) -> None:
    broken = Reinforce(steps=0).run(corpus, encoder, Watched(tmp_path / "broken").context())
    save_file({name: tensor * torch.nan for name, tensor in weights(broken).items()}, broken.folder / REASONER)
    for policy in ("gaussian", "token-logprob-paper"):
        step = build("step", {"use": "reinforce", "policy": policy, "reward": "ndcg"})
        assert isinstance(step, Reinforce)
        with pytest.raises(UserError, match=r"the reward is not finite in step 1 \(items \d+, \d+"):
            step.run(corpus, broken, Watched(tmp_path / policy).context())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"rollouts_per_step": 20}, "not a multiple of group"),
        ({"positives": 10}, "leave no negative"),
        ({"group": 1}, "at least 2"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(table: dict[str, int], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build("step", {"use": "reinforce", **table})
