"""Every component that this package ships: kind -> name -> `module:Class`. Strings, so that nothing is imported."""

from __future__ import annotations

CATALOGUE: dict[str, dict[str, str]] = {
    "step": {
        "prepare": "reaemb_bench.data.prepare:Prepare",
        "llm": "reaemb_bench.encoder.folder:LanguageModel",
        "contrast": "reaemb_bench.encoder.lrcl:Contrast",
        "reinforce": "reaemb_bench.rl.crrl:Reinforce",
        "reinforce-leaky-paper": "reaemb_bench.rl.crrl:ReinforceLeakyPaper",
        "encode": "reaemb_bench.encoder.embed:Encode",
        "reduce": "reaemb_bench.encoder.reducers:Reduce",
        "train": "reaemb_bench.recommender.fit:Train",
        "train-ids": "reaemb_bench.recommender.fit:TrainIds",
        "rank": "reaemb_bench.recommender.score:Rank",
        "floors": "reaemb_bench.recommender.simple_baselines:RankFloors",
    },
    "source": {
        "amazon-2014": "reaemb_bench.data.sources.amazon:Amazon2014",
        "amazon-2018": "reaemb_bench.data.sources.amazon:Amazon2018",
        "amazon-2023": "reaemb_bench.data.sources.amazon:Amazon2023",
        "goodreads": "reaemb_bench.data.sources.goodreads:Goodreads",
        "movielens-100k": "reaemb_bench.data.sources.movielens:MovieLens100K",
        "movielens-1m": "reaemb_bench.data.sources.movielens:MovieLens1M",
        "movielens-20m": "reaemb_bench.data.sources.movielens:MovieLens20M",
        "movielens-32m": "reaemb_bench.data.sources.movielens:MovieLens32M",
        "recbole-atomic": "reaemb_bench.data.sources.recbole:Atomic",
        "table": "reaemb_bench.data.sources.table:Table",
        "reaemb-authors": "reaemb_bench.data.sources.reaemb_authors:ReaEmbAuthors",
        "simulated": "reaemb_bench.data.sources.simulated:Simulated",
        "yelp": "reaemb_bench.data.sources.yelp:Yelp",
    },
    "filter": {
        "drop-users-of-rare-items": "reaemb_bench.data.filters:DropUsersOfRareItems",
        "k-core": "reaemb_bench.data.filters:KCore",
        "rating": "reaemb_bench.data.filters:MinimumRating",
        "years": "reaemb_bench.data.filters:Years",
    },
    "split": {
        "leave-last-two": "reaemb_bench.data.splits:LeaveLastTwo",
        "temporal": "reaemb_bench.data.splits:Temporal",
    },
    "prompt": {
        "attributes": "reaemb_bench.data.prompts:Attributes",
    },
    "backbone": {
        "bidirectional": "reaemb_bench.encoder.backbones.bidirectional:Bidirectional",
        "causal-lm": "reaemb_bench.encoder.backbones.causal_lm:CausalLM",
        "smollm2-135m": "reaemb_bench.encoder.backbones.smollm2:SmolLM2",
        "tiny": "reaemb_bench.encoder.backbones.tiny:Tiny",
    },
    "reasoner": {
        "latent-thought": "reaemb_bench.encoder.reasoners.latent_thought:LatentThought",
        "latent-thought-paper": "reaemb_bench.encoder.reasoners.latent_thought:LatentThoughtPaper",
        "none": "reaemb_bench.encoder.reasoners.none:NoThought",
    },
    "pooling": {
        "mean": "reaemb_bench.encoder.poolings:Mean",
        "last": "reaemb_bench.encoder.poolings:Last",
        "thought": "reaemb_bench.encoder.poolings:Thought",
    },
    "loss": {
        "soft-target": "reaemb_bench.encoder.losses.soft_target:SoftTarget",
        "soft-target-detached": "reaemb_bench.encoder.losses.soft_target:SoftTargetDetached",
        "info-nce": "reaemb_bench.encoder.losses.info_nce:InfoNCE",
    },
    "cooccurrence": {
        "whole-history": "reaemb_bench.data.cooccurrence:WholeHistory",
        "window": "reaemb_bench.data.cooccurrence:Window",
        "distance-decay": "reaemb_bench.data.cooccurrence:DistanceDecay",
    },
    "reward": {
        "reciprocal-log-rank": "reaemb_bench.rl.rewards.ranked:ReciprocalLogRank",
        "ndcg": "reaemb_bench.rl.rewards.ranked:NDCG",
        "softmax-likelihood": "reaemb_bench.rl.rewards.softmax_likelihood:SoftmaxLikelihood",
    },
    "advantage": {
        "batch-baseline-paper": "reaemb_bench.rl.advantages:BatchBaselinePaper",
        "group-mean": "reaemb_bench.rl.advantages:GroupMean",
        "group-clean": "reaemb_bench.rl.advantages:GroupClean",
        "leave-one-out": "reaemb_bench.rl.advantages:LeaveOneOut",
    },
    "policy": {
        "gaussian": "reaemb_bench.rl.policies:Gaussian",
        "token-logprob-paper": "reaemb_bench.rl.policies:TokenLogprobPaper",
    },
    "reducer": {
        "pca": "reaemb_bench.encoder.reducers:PCA",
        "whitening": "reaemb_bench.encoder.reducers:Whitening",
        "none": "reaemb_bench.encoder.reducers:Unreduced",
    },
    "item-table": {
        "ids": "reaemb_bench.recommender.item_tables:Ids",
        "frozen": "reaemb_bench.recommender.item_tables:Frozen",
        "initialised": "reaemb_bench.recommender.item_tables:Initialised",
        "ids-and-frozen": "reaemb_bench.recommender.item_tables:IdsAndFrozen",
    },
    "head": {
        "sasrec": "reaemb_bench.recommender.heads.sasrec:SASRec",
        "gru4rec": "reaemb_bench.recommender.heads.gru4rec:GRU4Rec",
        "bert4rec": "reaemb_bench.recommender.heads.bert4rec:BERT4Rec",
    },
    "objective": {
        "bce": "reaemb_bench.recommender.objectives:BinaryCrossEntropy",
        "cross-entropy": "reaemb_bench.recommender.objectives:CrossEntropy",
        "calibrated-bce": "reaemb_bench.recommender.objectives:CalibratedBCE",
        "sampled-softmax": "reaemb_bench.recommender.objectives:SampledSoftmax",
    },
    "floor": {
        "random": "reaemb_bench.recommender.simple_baselines:Random",
        "popularity": "reaemb_bench.recommender.simple_baselines:Popularity",
        "item-knn": "reaemb_bench.recommender.simple_baselines:ItemKNN",
        "last-item-knn": "reaemb_bench.recommender.simple_baselines:LastItemKNN",
    },
}

PROTOCOLS: dict[str, str] = {
    "source": "reaemb_bench.data.kinds:Source",
    "filter": "reaemb_bench.data.kinds:Filter",
    "split": "reaemb_bench.data.kinds:Split",
    "prompt": "reaemb_bench.data.kinds:Prompt",
    "backbone": "reaemb_bench.encoder.kinds:Backbone",
    "reasoner": "reaemb_bench.encoder.kinds:Reasoner",
    "pooling": "reaemb_bench.encoder.kinds:Pooling",
    "loss": "reaemb_bench.encoder.kinds:Loss",
    "cooccurrence": "reaemb_bench.data.kinds:Cooccurrence",
    "reward": "reaemb_bench.rl.kinds:Reward",
    "advantage": "reaemb_bench.rl.kinds:Advantage",
    "policy": "reaemb_bench.rl.kinds:Policy",
    "reducer": "reaemb_bench.encoder.kinds:Reducer",
    "item-table": "reaemb_bench.recommender.kinds:ItemTable",
    "head": "reaemb_bench.recommender.kinds:Head",
    "objective": "reaemb_bench.recommender.kinds:Objective",
    "floor": "reaemb_bench.recommender.kinds:Floor",
}
"""The methods that a component of each kind must have; a step has `run`."""
