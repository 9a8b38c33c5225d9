"""The paper's variants of the three heads give its code's numbers, without computing any padding."""

import torch
from torch import Tensor, nn

from reaemb_bench.recommender.heads.bert4rec import BERT4Rec
from reaemb_bench.recommender.heads.gru4rec import GRU4Rec
from reaemb_bench.recommender.heads.sasrec import SASRec
from reaemb_bench.recommender.item_tables import FrozenTable
from reaemb_bench.recommender.kinds import Head
from reaemb_bench.recommender.objectives import BinaryCrossEntropy
from reaemb_bench.recommender.packing import pack
from tests.helpers.heads import CPU, attention_weights, everywhere, fixture, real_rows, sequences


def candidate_scores(head: Head, network: nn.Module, vectors: Tensor, given: dict[str, Tensor]) -> Tensor:
    asked = head.scoring_input(sequences(real_rows(given["sequence"])), len(vectors), CPU)
    last = network(asked, vectors, asked.last)
    return torch.einsum("uh,uch->uc", last, vectors[given["candidates"] - 1])


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_sasrec_without_masks() -> None:
    given = fixture("sasrec")
    head = SASRec(hidden=16, max_length=12, dropout=0, causal=False, attend_padding=True)
    network, vectors = head.build(nn.Identity()).eval(), given["weight.item_emb.weight"][1:]
    network.load_state_dict(attention_weights(given, 14))
    close(candidate_scores(head, network, vectors, given), given["candidate_scores"])
    real = given["sequence"] > 0
    made = everywhere(network, pack(sequences(real_rows(given["sequence"])), 12, CPU), vectors)
    positive, negative = given["positive"][real] - 1, given["negative"][real] - 1
    close(BinaryCrossEntropy().loss(made, positive, vectors, negative[:, None]), given["loss"])


def test_bert4rec_without_masks() -> None:
    given = fixture("bert4rec")
    head = BERT4Rec(hidden=16, max_length=12, dropout=0, count_from="oldest", attend_padding=True)
    network, table = head.build(nn.Identity()).eval(), given["weight.item_emb.weight"]
    # Their mask is row 31 of the table; here it is a parameter of the head, and item number 30.
    network.load_state_dict({**attention_weights(given, 14), "mask": table[31]})
    vectors = table[1:31]
    close(candidate_scores(head, network, vectors, given), given["candidate_scores"])
    chosen = given["positive"] > 0
    places = torch.nonzero(chosen[given["sequence"] > 0])[:, 0]
    outputs = network(pack(sequences(real_rows(given["masked_sequence"])), 12, CPU), vectors, places)
    positive, negative = given["positive"][chosen] - 1, given["negative"][chosen] - 1
    close(BinaryCrossEntropy().loss(outputs, positive, vectors, negative[:, None]), given["loss"])


def test_gru4rec_that_reads_padding_and_is_asked_once() -> None:
    given = fixture("gru4rec")
    head = GRU4Rec(hidden=16, max_length=12, dropout=0, bias=False, projected=False, targets="last", read_padding=True)
    network, table = head.build(nn.Identity()).eval(), given["weight.item_emb.weight"]
    weights = {f"gru.{name}": given[f"weight.backbone.gru.{name}"] for name in ("weight_hh_l0", "weight_ih_l0")}
    network.load_state_dict({**weights, "padding": table[0]})
    vectors = table[1:31]
    close(candidate_scores(head, network, vectors, given), given["candidate_scores"])
    packed = pack(sequences(real_rows(given["sequence"])), 12, CPU)
    outputs = network(packed, vectors, packed.last)
    loss = BinaryCrossEntropy().loss(outputs, given["positive"] - 1, vectors, given["negative"] - 1)
    close(loss, given["loss"])


def test_gru4rec_over_frozen_vectors_reads_the_adapters_output_for_zeros_as_padding() -> None:
    vectors = torch.randn(30, 8)
    table = FrozenTable(vectors.numpy(), 16, adapter="linear", inner=12, unit_rms=False)
    head = GRU4Rec(hidden=16, max_length=6, dropout=0, bias=False, projected=False, targets="last", read_padding=True)
    network = head.build(table).eval()
    assert "padding" not in network.state_dict()
    packed = pack(sequences([[3, 7, 2]]), 6, CPU)
    state = network(packed, table(), packed.last)
    # The plain way: a row of zeros in front of the vectors, read three times.
    rows = table.adapter(torch.cat([torch.zeros(1, 8), vectors]))[[0, 0, 0, 4, 8, 3]]
    plain = network.gru(rows)[0][-1]
    close(state[0], plain)
    for loss in (state, plain):
        loss.sum().backward(retain_graph=True)
    # Its gradient reaches the adapter's biases; both ways were added up.
    bias = table.adapter[0].bias
    both = bias.grad.clone()
    (alone,) = torch.autograd.grad(plain.sum(), bias)
    close(both, 2 * alone)
