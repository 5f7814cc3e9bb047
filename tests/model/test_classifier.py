"""The model as a whole: precision, compilation, pooling, errors, and that it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chela.mixers import ChelaConfig, ChelaMixer, MegaMixer, S4DMixer, SGConvMixer
from chela.mixers.mega import MegaConfig
from chela.mixers.s4d import S4DConfig
from chela.mixers.sgconv import SGConvConfig
from chela.model import BackboneConfig, Classifier
from chela.model.head import pool
from chela.testing import CLASSES, DIM, VOCAB, ragged
from tests.model.variants import BACKBONES, MIXERS, make_model


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_trains(name):
    model = make_model({}, BACKBONES[name])
    logits = model(*ragged())
    assert logits.shape == (5, CLASSES)
    F.cross_entropy(logits, torch.tensor([0, 1, 2, 0, 1])).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("causal", [True, False])
def test_bfloat16_autocast_stays_near_float64(causal):
    model = make_model({}, {}, causal=causal)
    ids, lengths = ragged()
    exact = model(ids, lengths)
    model = model.float()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(ids, lengths)
        loss = logits.float().logsumexp(-1).mean()
    loss.backward()
    assert (logits.double() - exact).norm() < 4e-2 * exact.norm()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_autocast_narrows_what_flows_between_the_operations():
    model = make_model({}, {}).float()
    seen: dict[str, torch.dtype] = {}
    mixer = model.backbone.blocks[0].mixer
    for name, module in mixer.named_children():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out.dtype}))
    with torch.autocast("cpu", torch.bfloat16):
        model(*ragged())
    assert set(seen) == {"short_conv", "long_conv", "value", "attention", "gate", "path"}
    assert set(seen.values()) == {torch.bfloat16}


@pytest.mark.compiler
@pytest.mark.parametrize(
    ("mixer", "backbone", "causal"),
    [
        ("default", "layer-pre", False),
        ("branch-batchnorm", "batch-pre", True),
        ("ema", "last", True),
        ("default", "max", True),
    ],
)
def test_compiles_into_one_graph(mixer, backbone, causal):
    model = make_model(MIXERS[mixer], BACKBONES[backbone], causal=causal)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    ids, lengths = ragged()
    torch.testing.assert_close(compiled(ids, lengths), model(ids, lengths))
    compiled(ids, lengths).sum().backward()


def test_pooling_takes_the_true_length():
    x = torch.arange(24.0).view(2, 4, 3)
    lengths = torch.tensor([3, 0])
    torch.testing.assert_close(pool(x, lengths, "mean")[0], x[0, :3].mean(0))
    torch.testing.assert_close(pool(x, lengths, "last")[0], x[0, 2])
    torch.testing.assert_close(pool(-x, lengths, "max")[0], -x[0, 0])
    torch.testing.assert_close(pool(x, lengths, "max")[0], x[0, 2])
    for how in ("mean", "max", "last"):
        assert not pool(x, lengths, how)[1].any()
    torch.testing.assert_close(pool(x, None, "mean"), x.mean(1))
    torch.testing.assert_close(pool(x, None, "last"), x[:, 3])
    torch.testing.assert_close(pool(x, None, "max"), x[:, 3])


def test_encode_is_what_the_head_reads():
    model = make_model({}, {})
    features = model.encode(*ragged())
    assert features.shape == (5, DIM)
    torch.testing.assert_close(model.head(features), model(*ragged()))


class Averager(nn.Module):
    """The least that the backbone asks of a mixer."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        return x.mean(1, keepdim=True).expand_as(x)


def test_any_mixer_fits():
    config = BackboneConfig(dim=4, depth=2, dropout=0)
    model = Classifier(config, Averager, vocab_size=5, input_dim=1, num_classes=2)
    ids, lengths = torch.tensor([[1, 2, 3]]), torch.tensor([2])
    torch.testing.assert_close(model.eval()(ids, lengths), model.fold()(ids, lengths))


@pytest.mark.parametrize(
    ("tokens", "values", "remedy"),
    [
        (True, torch.zeros(2, 5), "vocab_size=None"),
        (True, torch.zeros(2, 5, 1, dtype=torch.long), "integers"),
        (False, torch.zeros(2, 5, dtype=torch.long), "build the model with a vocab_size"),
        (False, torch.zeros(2, 5, 3), r"floats \(B, L, 2\)"),
    ],
)
def test_values_that_do_not_fit_name_the_remedy(tokens, values, remedy):
    with pytest.raises(ValueError, match=remedy):
        make_model({}, {}, tokens=tokens)(values, torch.tensor([5, 5]))


def test_the_same_seed_builds_the_same_model():
    first, second = make_model({}, {}), make_model({}, {})
    for mine, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("causal", [True, False])
def test_overfits_random_sequences(causal):
    torch.manual_seed(0)
    config = BackboneConfig(dim=64, depth=2, dropout=0, causal=causal)
    model = Classifier(
        config, lambda: ChelaMixer(64, 64, causal), vocab_size=VOCAB, input_dim=1, num_classes=4
    )
    ids = torch.randint(0, VOCAB, (32, 64))
    lengths = torch.randint(32, 65, (32,))
    labels = torch.randint(0, 4, (32,))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(100):
        loss = F.cross_entropy(model(ids, lengths), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.02:
            break
    assert loss < 0.05


@pytest.mark.parametrize("name", ["chela", "mega-gate", "s4d", "sgconv", "mega"])
def test_tied_dropout_reaches_every_dropout_of_the_model(name):
    mixers = {
        "chela": lambda: ChelaMixer(16, 64, False, ChelaConfig(qk_dim=16, dropout=0.5)),
        "mega-gate": lambda: ChelaMixer(
            16, 64, False, ChelaConfig(qk_dim=16, dropout=0.5, gate="mega")
        ),
        "s4d": lambda: S4DMixer(16, 64, False, S4DConfig(dropout=0.5)),
        "sgconv": lambda: SGConvMixer(16, 64, False, SGConvConfig(dropout=0.5)),
        "mega": lambda: MegaMixer(16, 64, False, MegaConfig(dropout=0.5)),
    }
    for tied in (True, False):
        config = BackboneConfig(dim=16, depth=1, dropout=0.5, tie_dropout=tied, prenorm=False)
        model = Classifier(config, mixers[name], vocab_size=None, input_dim=1, num_classes=2)
        seen: list[tuple[Tensor, Tensor]] = []

        def look(_: nn.Module, inputs: tuple[Tensor], y: Tensor, into: Any = seen) -> None:
            into.append((inputs[0], y))

        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.register_forward_hook(look)
        model(torch.randn(2, 64))
        assert len(seen) == 4  # inside the mixer and the MLP, and behind both
        for before, after in seen:  # (2, 64, C): where a token's channel was dropped
            dropped = (after == 0) & (before != 0)
            assert dropped.any()
            assert tied == torch.equal(dropped, dropped[:, :1].expand_as(dropped))


def test_a_norm_of_pooled_features_gives_each_channel_the_scale_of_the_others():
    model = make_model({}, {"pooled_norm": "batch", "head": "linear"}).train()
    with torch.no_grad():
        model.pooled_norm.weight.fill_(1)
        model.pooled_norm.bias.zero_()
    ids, lengths = ragged()
    features = model.encode(ids, lengths)
    real = features[lengths > 0]
    torch.testing.assert_close(real.mean(0), torch.zeros_like(real[0]))
    assert 0.9 < real.var(0, correction=0).mean() <= 1  # but for epsilon
    torch.testing.assert_close(model.head(features), model(ids, lengths))
    assert isinstance(model.head, nn.Linear)


def test_a_linear_head_has_no_hidden_channels():
    with pytest.raises(ValueError, match="head=mlp or head_dim=null"):
        BackboneConfig(head="linear", head_dim=8)


def test_a_norm_of_pooled_features_does_not_see_empty_sequences():
    model = make_model({}, {"pooled_norm": "batch"}).train()
    ids, lengths = ragged()
    full = lengths > 0
    expected = model.encode(ids[full], lengths[full])
    more = torch.cat([lengths[full], torch.zeros(2, dtype=lengths.dtype)])
    found = model.encode(torch.cat([ids[full], ids[:2]]), more)[:-2]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("vocab_size", [VOCAB, None])
def test_training_alone_leaves_whole_tokens_out(vocab_size: int | None) -> None:
    torch.manual_seed(0)
    config = BackboneConfig(dim=DIM, depth=1, token_dropout=0.25)
    sizes: Any = {"vocab_size": vocab_size, "input_dim": 1, "num_classes": CLASSES}
    model = Classifier(config, Averager, **sizes)
    seen: list[Tensor] = []
    model.backbone.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    values = torch.randint(VOCAB, (8, 100)) if vocab_size else torch.randn(8, 100)
    lengths = torch.full((8,), 100)
    model.train().encode(values, lengths)
    model.eval().encode(values, lengths)
    training, whole = seen
    left_out = (training == 0).all(-1)  # (B, L)
    assert left_out.float().mean() == pytest.approx(0.25, abs=0.05)
    torch.testing.assert_close(training[~left_out], whole[~left_out] / 0.75)
    assert whole.ne(0).any(-1).all()
