"""Two documents per sample: what the head reads, and that neither document nor padding leaks."""

from __future__ import annotations

import pytest
import torch

from chela.mixers import ChelaMixer
from chela.model import BackboneConfig, Classifier
from chela.testing import CLASSES, DIM, MAX_LENGTH, VOCAB, unsettled
from tests.model.variants import MIXERS, mixer_config

# Layer norm, and batch norm whose statistics could mix the two documents up.
NORMS = ["layer", "batch"]


def make_pairs(mixer: str = "default", causal: bool = False, **backbone) -> Classifier:
    torch.manual_seed(0)
    choices = {"dim": DIM, "depth": 2, "dropout": 0.0, "causal": causal, **backbone}
    model = Classifier(
        BackboneConfig(**choices),
        lambda: ChelaMixer(DIM, MAX_LENGTH, causal, mixer_config(**MIXERS[mixer])),
        vocab_size=VOCAB,
        input_dim=1,
        num_classes=CLASSES,
        documents=2,
    )
    return unsettled(model)


def pairs(length: int = 17) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (4, 2, length) and lengths (4, 2): one is whole, one is short, one is empty."""
    torch.manual_seed(1)
    lengths = torch.tensor([[length, 9], [3, length], [1, 12], [0, 5]])
    return torch.randint(0, VOCAB, (4, 2, length)), lengths


@torch.no_grad()
@pytest.mark.parametrize("norm", NORMS)
def test_the_head_reads_both_their_difference_and_their_product(norm):
    """Each document encoded alone, cut to its length; the formula written out by hand."""
    model = make_pairs(norm=norm).eval()
    ids, lengths = pairs()
    logits = model(ids, lengths)
    assert logits.shape == (4, CLASSES)
    for row in range(4):
        x = []
        for document in range(2):
            kept = int(lengths[row, document])
            tokens = ids[row, document, :kept]
            inner = model.backbone(tokens[None])[0] if kept else torch.zeros(1, DIM).double()
            x.append(inner.sum(0) / max(1, kept))
        features = [[a, b, a - b, a * b] for a, b in zip(x[0], x[1], strict=True)]
        flat = torch.tensor([entry[part] for part in range(4) for entry in features]).double()
        hidden = model.head.hidden.weight @ flat + model.head.hidden.bias
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        expected = model.head.out.weight @ hidden + model.head.out.bias
        torch.testing.assert_close(logits[row], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_a_document_is_encoded_the_same_in_either_place(norm):
    """Swapping the documents swaps [x1, x2], turns x1 - x2 round and leaves x1 * x2."""
    model = make_pairs(norm=norm).train()
    seen = []
    model.head.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].detach()))
    ids, lengths = pairs()
    model(ids, lengths)
    model(ids.flip(1), lengths.flip(1))
    first, second, difference, product = seen[0].chunk(4, dim=-1)
    swapped = torch.cat([second, first, -difference, product], dim=-1)
    torch.testing.assert_close(seen[1], swapped, rtol=1e-9, atol=1e-9)
    assert (difference.abs() > 1e-3).any()


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("training", [True, False])
def test_padding_does_not_matter(causal, norm, training):
    ids, lengths = pairs()
    longer = torch.full((4, 2, MAX_LENGTH), 10**6)
    for row in range(4):
        for document in range(2):
            kept = int(lengths[row, document])
            longer[row, document, :kept] = ids[row, document, :kept]
    logits = [
        make_pairs(causal=causal, norm=norm).train(training)(values, lengths)
        for values in (ids, longer)
    ]
    assert torch.isfinite(logits[0]).all()
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("mixer", ["default", "branch-batchnorm"])
def test_folding_keeps_the_logits(mixer):
    model = make_pairs(mixer).eval()
    ids, lengths = pairs()
    before = model(ids, lengths)
    count = sum(p.numel() for p in model.parameters())
    folded = model.fold()
    assert sum(p.numel() for p in folded.parameters()) < count
    torch.testing.assert_close(folded(ids, lengths), before, rtol=1e-8, atol=1e-8)


@pytest.mark.compiler
def test_pairs_compile_into_one_graph():
    model = make_pairs()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*pairs()), model(*pairs()))


def test_every_weight_learns_from_a_pair():
    model = make_pairs()
    model(*pairs()).logsumexp(-1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_real_values_and_pairs_without_padding():
    torch.manual_seed(0)
    config = BackboneConfig(dim=DIM, depth=1, dropout=0)
    model = Classifier(
        config,
        lambda: ChelaMixer(DIM, MAX_LENGTH, False, mixer_config()),
        vocab_size=None,
        input_dim=3,
        num_classes=CLASSES,
        documents=2,
    ).eval()
    values = torch.randn(2, 2, 9, 3)
    whole = torch.full((2, 2), 9)
    torch.testing.assert_close(model(values), model(values, whole))


@pytest.mark.parametrize(
    ("shape", "lengths"),
    [((4, 17), (4,)), ((4, 1, 17), (4, 1)), ((4, 3, 17), (4, 3)), ((4, 2, 17), (4,))],
)
def test_what_is_no_pair_is_refused(shape, lengths):
    with pytest.raises(ValueError, match="documents=1"):
        make_pairs()(torch.zeros(shape, dtype=torch.long), torch.ones(lengths, dtype=torch.long))


@pytest.mark.parametrize("documents", [0, 3])
def test_other_numbers_of_documents_are_refused(documents):
    config = BackboneConfig(dim=DIM, depth=1)
    with pytest.raises(ValueError, match=f"documents={documents}"):
        Classifier(
            config,
            torch.nn.Identity,
            vocab_size=3,
            input_dim=1,
            num_classes=2,
            documents=documents,
        )
