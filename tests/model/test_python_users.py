"""Who builds a model in Python is told what a command line is told."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from chela.config.settings import ScheduleConfig
from chela.kernels import use_kernels
from chela.mixers import ChelaConfig, SGConvConfig, TransformerConfig
from chela.mixers.s4d import S4DConfig
from chela.model import BackboneConfig, Classifier
from chela.testing import DIM, MAX_LENGTH, VOCAB, ragged
from tasks.listops.task import ListOpsConfig
from tests.model.baseline_variants import EVERY
from tests.model.variants import BACKBONES, CAUSAL, make_model

EITHER_WAY = [name for name in EVERY if name not in CAUSAL]


def classifier(name: str, causal: bool = False, mixer_causal: bool = False) -> Classifier:
    mixer, config = EVERY[name]
    return Classifier(
        BackboneConfig(dim=DIM, depth=1, dropout=0.0, causal=causal),
        lambda: mixer(DIM, MAX_LENGTH, mixer_causal, config),
        vocab_size=VOCAB,
        input_dim=1,
        num_classes=3,
    )


@pytest.mark.parametrize(
    ("schema", "values", "parts"),
    [
        (ChelaConfig, {"long_conv_kernel": "multi"}, ["long_conv_kernel", "'multiscale'", "'ema'"]),
        (ChelaConfig, {"gate": "foo"}, ["gate", "'silu'", "'mega'", "'none'"]),
        (ChelaConfig, {"qk_dim": 0}, ["qk_dim", "greater than 0"]),
        (ChelaConfig, {"heads": 2}, ["heads", "unexpected"]),
        (BackboneConfig, {"head": "foo"}, ["head", "'mlp'", "'linear'"]),
        (BackboneConfig, {"pooling": "sum"}, ["pooling", "'mean'", "'max'", "'last'"]),
        (BackboneConfig, {"dropout": 1.0}, ["dropout", "less than 1"]),
        (S4DConfig, {"init": "legs"}, ["init", "'lin'", "'inv'"]),
        (S4DConfig, {"state_dim": 7}, ["set state_dim=8"]),
        (S4DConfig, {"dt_min": 0.2}, ["set dt_min <= dt_max"]),
        (SGConvConfig, {"decay": 1.5}, ["decay", "less than or equal to 1"]),
        (TransformerConfig, {"positions": "sinusoidal"}, ["positions", "'rotary'"]),
        (ChelaConfig, {"branch_widths": [0]}, ["branch_widths", "greater than 0"]),
        (ListOpsConfig, {"source": "hub"}, ["source", "'official'", "'generated'"]),
        (ScheduleConfig, {"name": "step", "warmup_steps": 0, "final_ratio": 0}, ["'cosine'"]),
        (
            ScheduleConfig,
            {"name": "constant", "warmup_steps": 0, "final_ratio": 0},
            ["final_ratio=0.0 would do nothing", "schedule=constant"],
        ),
    ],
)
def test_a_dataclass_names_the_choices(
    schema: Any, values: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(ValueError) as caught:
        schema(**values)
    for part in parts:
        assert part.lower() in str(caught.value).lower()


@pytest.mark.parametrize("name", EITHER_WAY)
def test_a_causal_backbone_takes_no_mixer_that_is_not(name: str) -> None:
    with pytest.raises(ValueError, match="give the mixer causal=True"):
        classifier(name, causal=True)
    classifier(name, causal=True, mixer_causal=True)
    classifier(name, mixer_causal=True)  # may look at the whole sequence, and does not


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["layer-pre", "rms-post", "batch-pre", "scale-pre"])
def test_narrow_weights_are_refused_with_what_to_do(name: str, dtype: torch.dtype) -> None:
    model = make_model({}, BACKBONES[name]).to(dtype)
    with pytest.raises(ValueError, match=r"keep them in float32.*torch\.autocast"):
        model(*ragged())


@pytest.mark.parametrize(
    ("lengths", "found"),
    [
        (torch.tensor([3]), r"\(5,\).*not torch.int64 \(1,\)"),
        (torch.tensor([[3], [3], [3], [3], [3]]), r"\(5, 1\)"),
        ([17, 9, 1, 0, 16], r"not \[17, 9, 1, 0, 16\]"),
        (torch.tensor([17.0, 9, 1, 0, 16]), "torch.float32"),
        (torch.tensor([18, 9, 1, 0, 16]), "from 0 to the padded length 17, not from 0 to 18"),
        (torch.tensor([17, 9, 1, -1, 16]), "not from -1 to 17"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(lengths: Any, found: str) -> None:
    model = make_model({}, {})
    ids, right = ragged()
    with pytest.raises(ValueError, match=found):
        model(ids, lengths)
    with pytest.raises(ValueError, match=found):
        model.backbone(ids, lengths)
    model(ids, right.int())


@pytest.mark.parametrize("lengths", [None, torch.zeros(5, dtype=torch.int64)])
def test_a_batch_without_any_token_is_refused(lengths: Any) -> None:
    with pytest.raises(ValueError, match="no token at all; pad it to one position"):
        make_model({}, {})(torch.zeros(5, 0, dtype=torch.int64), lengths)


@pytest.mark.parametrize("lengths", [[[1, 2]], torch.tensor([3]), torch.tensor([[3, 40]])])
def test_lengths_of_pairs_that_do_not_fit_are_refused(lengths: Any) -> None:
    mixer, config = EVERY["default"]
    model = Classifier(
        BackboneConfig(dim=DIM, depth=1),
        lambda: mixer(DIM, MAX_LENGTH, False, config),
        vocab_size=VOCAB,
        input_dim=1,
        num_classes=2,
        documents=2,
    )
    with pytest.raises(ValueError, match="lengths"):
        model(torch.ones(1, 2, 9, dtype=torch.int64), lengths)


def test_a_device_has_a_name() -> None:
    use_kernels(make_model({}, {}), "auto", "cpu")


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", EITHER_WAY)
def test_every_model_computes_in_float64_by_default_and_on_meta(name: str, causal: bool) -> None:
    ids, lengths = ragged()
    torch.set_default_dtype(torch.float64)
    try:
        model = classifier(name, causal, causal)
        logits = model(ids, lengths)
    finally:
        torch.set_default_dtype(torch.float32)
    assert logits.dtype == torch.float64
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    assert model.to("meta")(ids.to("meta"), lengths.to("meta")).shape == logits.shape
