"""Every component that this package ships: kind -> name -> `module:Class`. Strings, so that nothing is imported."""

from __future__ import annotations

_HOME = "reaemb_bench"

CATALOGUE: dict[str, dict[str, str]] = {
    "step": {
        "prepare": f"{_HOME}.steps.prepare:Prepare",
        "llm": f"{_HOME}.steps.llm:LanguageModel",
        "contrast": f"{_HOME}.steps.contrast:Contrast",
        "reinforce": f"{_HOME}.steps.reinforce:Reinforce",
        "reinforce-leaky-paper": f"{_HOME}.steps.reinforce:ReinforceLeakyPaper",
        "encode": f"{_HOME}.steps.encode:Encode",
        "reduce": f"{_HOME}.steps.reduce:Reduce",
        "train": f"{_HOME}.steps.train:Train",
        "train-ids": f"{_HOME}.steps.train:TrainIds",
        "rank": f"{_HOME}.steps.rank:Rank",
        "floors": f"{_HOME}.steps.floors:RankFloors",
    },
    "source": {
        "amazon-2014": f"{_HOME}.data.amazon:Amazon2014",
        "amazon-2018": f"{_HOME}.data.amazon:Amazon2018",
        "amazon-2023": f"{_HOME}.data.amazon:Amazon2023",
        "goodreads": f"{_HOME}.data.goodreads:Goodreads",
        "movielens-100k": f"{_HOME}.data.movielens:MovieLens100K",
        "movielens-1m": f"{_HOME}.data.movielens_large:MovieLens1M",
        "movielens-20m": f"{_HOME}.data.movielens_large:MovieLens20M",
        "movielens-32m": f"{_HOME}.data.movielens_large:MovieLens32M",
        "recbole-atomic": f"{_HOME}.data.atomic:Atomic",
        "table": f"{_HOME}.data.table:Table",
        "reaemb-authors": f"{_HOME}.data.authors:ReaEmbAuthors",
        "simulated": f"{_HOME}.data.simulated:Simulated",
        "yelp": f"{_HOME}.data.yelp:Yelp",
    },
    "filter": {
        "drop-users-of-rare-items": f"{_HOME}.data.filters:DropUsersOfRareItems",
        "k-core": f"{_HOME}.data.filters:KCore",
        "rating": f"{_HOME}.data.filters:MinimumRating",
        "years": f"{_HOME}.data.filters:Years",
    },
    "split": {
        "leave-last-two": f"{_HOME}.data.splits:LeaveLastTwo",
        "temporal": f"{_HOME}.data.splits:Temporal",
    },
    "prompt": {
        "attributes": f"{_HOME}.data.prompts:Attributes",
    },
    "backbone": {
        "bidirectional": f"{_HOME}.backbones.bidirectional:Bidirectional",
        "causal-lm": f"{_HOME}.backbones.causal_lm:CausalLM",
        "smollm2-135m": f"{_HOME}.backbones.smollm2:SmolLM2",
        "tiny": f"{_HOME}.backbones.tiny:Tiny",
    },
    "reasoner": {
        "latent-thought": f"{_HOME}.reasoners.latent_thought:LatentThought",
        "latent-thought-paper": f"{_HOME}.reasoners.latent_thought_paper:LatentThoughtPaper",
        "none": f"{_HOME}.reasoners.no_thought:NoThought",
    },
    "pooling": {
        "mean": f"{_HOME}.poolings.poolings:Mean",
        "last": f"{_HOME}.poolings.poolings:Last",
        "thought": f"{_HOME}.poolings.poolings:Thought",
    },
    "loss": {
        "soft-target": f"{_HOME}.losses.soft_target:SoftTarget",
        "soft-target-detached": f"{_HOME}.losses.soft_target:SoftTargetDetached",
        "info-nce": f"{_HOME}.losses.info_nce:InfoNCE",
    },
    "cooccurrence": {
        "whole-history": f"{_HOME}.cooccurrences.cooccurrences:WholeHistory",
        "window": f"{_HOME}.cooccurrences.cooccurrences:Window",
        "distance-decay": f"{_HOME}.cooccurrences.cooccurrences:DistanceDecay",
    },
    "reward": {
        "reciprocal-log-rank": f"{_HOME}.rewards.ranked:ReciprocalLogRank",
        "ndcg": f"{_HOME}.rewards.ranked:NDCG",
        "softmax-likelihood": f"{_HOME}.rewards.softmax_likelihood:SoftmaxLikelihood",
    },
    "advantage": {
        "batch-baseline-paper": f"{_HOME}.advantages.advantages:BatchBaselinePaper",
        "group-mean": f"{_HOME}.advantages.advantages:GroupMean",
        "group-clean": f"{_HOME}.advantages.advantages:GroupClean",
        "leave-one-out": f"{_HOME}.advantages.advantages:LeaveOneOut",
    },
    "policy": {
        "gaussian": f"{_HOME}.policies.gaussian:Gaussian",
        "token-logprob-paper": f"{_HOME}.policies.token_logprob_paper:TokenLogprobPaper",
    },
    "reducer": {
        "pca": f"{_HOME}.reducers.reducers:PCA",
        "whitening": f"{_HOME}.reducers.reducers:Whitening",
        "none": f"{_HOME}.reducers.reducers:Unreduced",
    },
    "item-table": {
        "ids": f"{_HOME}.tables.tables:Ids",
        "frozen": f"{_HOME}.tables.tables:Frozen",
        "initialised": f"{_HOME}.tables.tables:Initialised",
        "ids-and-frozen": f"{_HOME}.tables.tables:IdsAndFrozen",
    },
    "head": {
        "sasrec": f"{_HOME}.heads.sasrec:SASRec",
        "gru4rec": f"{_HOME}.heads.gru4rec:GRU4Rec",
        "bert4rec": f"{_HOME}.heads.bert4rec:BERT4Rec",
    },
    "objective": {
        "bce": f"{_HOME}.objectives.bce:BinaryCrossEntropy",
        "cross-entropy": f"{_HOME}.objectives.cross_entropy:CrossEntropy",
        "calibrated-bce": f"{_HOME}.objectives.calibrated_bce:CalibratedBCE",
        "sampled-softmax": f"{_HOME}.objectives.sampled_softmax:SampledSoftmax",
    },
    "floor": {
        "random": f"{_HOME}.floors.random:Random",
        "popularity": f"{_HOME}.floors.popularity:Popularity",
        "item-knn": f"{_HOME}.floors.item_knn:ItemKNN",
        "last-item-knn": f"{_HOME}.floors.item_knn:LastItemKNN",
    },
}
