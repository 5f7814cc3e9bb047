"""A prompt at once and then a token at a time is the whole sequence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chela.kernels import use_kernels
from chela.mixers import TransformerMixer
from chela.mixers.stepping import Filter, recent, select
from chela.model import BackboneConfig, TokenModel
from chela.model.stepping import prefill, step
from chela.testing import (
    DIM,
    MAX_LENGTH,
    VOCAB,
    Subject,
    error_of_steps,
    steps_are_the_whole_sequence,
    unsettled,
)
from tests.model.baseline_variants import EVERY
from tests.model.variants import CAUSAL, OF_TOKENS


def make_model(name: str, causal: bool = True, **backbone: Any) -> TokenModel:
    """Two blocks in float64, every parameter off its initial value."""
    mixer, config = EVERY[name]
    torch.manual_seed(0)
    chosen = {"dim": DIM, "depth": 2, "dropout": 0.0, "causal": causal, **backbone}
    model = TokenModel(
        BackboneConfig(**chosen),
        lambda: mixer(DIM, MAX_LENGTH, causal, config),
        vocab_size=VOCAB,
        input_dim=1,
        num_classes=VOCAB,
    )
    return unsettled(model).eval()


@pytest.mark.parametrize("name", EVERY)
def test_a_prompt_and_steps_are_the_whole_sequence(name: str) -> None:
    """In float64 and bfloat16, and in float32."""
    subject = Subject(*EVERY[name])
    steps_are_the_whole_sequence(subject, causal=True)
    x, lengths = subject.inputs(4, MAX_LENGTH).float(), torch.tensor([9, 1, 5, 12])
    assert error_of_steps(subject.make_mixer(causal=True).eval().float(), x, lengths) < 1e-5


@settings(max_examples=60)
@given(
    name=st.sampled_from(sorted(EVERY)),
    lengths=st.lists(st.integers(1, MAX_LENGTH), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_wherever_the_prompts_end(name: str, lengths: list[int], seed: int) -> None:
    mixer, config = EVERY[name]
    built = Subject(mixer, config).make_mixer(causal=True).eval()
    torch.manual_seed(seed)
    x = torch.randn(len(lengths), MAX_LENGTH, DIM, dtype=torch.float64)
    assert error_of_steps(built, x, torch.tensor(lengths)) < 1e-9


@pytest.mark.parametrize("backbone", OF_TOKENS)
@pytest.mark.parametrize("name", ["default", "s4d-kernel", "transformer"])
def test_a_model_answers_as_on_the_whole_sequence(name: str, backbone: str) -> None:
    """Whatever the norms: each, batch norm in evaluation too, takes a token by itself."""
    model = make_model(name, **OF_TOKENS[backbone])
    ids, lengths = torch.randint(VOCAB, (3, MAX_LENGTH)), torch.tensor([7, 1, 4])
    whole = model(ids)
    logits, state = prefill(model, ids[:, :7], lengths)
    rows, places = torch.arange(3), lengths - 1
    for _ in range(MAX_LENGTH - 7):
        torch.testing.assert_close(logits, whole[rows, places], rtol=1e-9, atol=1e-9)
        places = places + 1
        logits, state = step(model, ids[rows, places][:, None], state)


@pytest.mark.parametrize("name", ["default", "ema-batchnorm"])
def test_a_folded_model_goes_on_as_well(name: str) -> None:
    model = make_model(name)
    ids = torch.randint(VOCAB, (2, 12))
    whole = model(ids)[:, -1]
    _, state = prefill(model.fold(), ids[:, :11])
    torch.testing.assert_close(step(model, ids[:, 11:], state)[0], whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "name", ["default", "decay-and-shift", "transformer", "mega_chunk", "linear_transformer"]
)
def test_a_state_is_copied_sequence_by_sequence(name: str) -> None:
    """Two ways on from one state do not disturb each other."""
    model = make_model(name)
    ids = torch.randint(VOCAB, (2, 6))
    _, state = prefill(model, ids, room=2)
    other = select(state, torch.tensor([1, 1, 0]))
    tokens = torch.tensor([[3], [4]])
    one, _ = step(model, tokens, state)
    two, _ = step(model, torch.tensor([[4], [3], [3]]), other)
    torch.testing.assert_close(two[[2, 0]], one)
    whole = model(torch.cat([ids[1], torch.tensor([3])])[None])[0, -1]
    torch.testing.assert_close(two[1], whole)


@pytest.mark.parametrize("room", [0, 3, 200])
def test_a_cache_has_place_for_every_step(room: int) -> None:
    """Also where more steps follow than were spoken of."""
    mixer = Subject(TransformerMixer, TransformerMixer.Config(num_heads=2)).make_mixer(True)
    x = torch.randn(1, 150, DIM, dtype=torch.float64)
    y, state = mixer.prefill(x[:, :2], room=room)
    for place in range(2, 150):
        y, state = mixer.step(x[:, place : place + 1], state)
    torch.testing.assert_close(y[:, 0], mixer(x)[:, -1])


@pytest.mark.parametrize(
    "name", ["default", "s4d-kernel", "decay-and-shift", "linear_transformer", "mega_chunk"]
)
def test_memory_does_not_grow_with_the_length(name: str) -> None:
    model = make_model(name)

    def numbers(state: Any) -> list[tuple[int, ...]]:
        return [
            tuple(leaf.shape)
            for leaf in torch.utils._pytree.tree_leaves(state)
            if isinstance(leaf, torch.Tensor)
        ]

    _, state = prefill(model, torch.randint(VOCAB, (2, 5)))
    before = numbers(state)
    for _ in range(3 * MAX_LENGTH):  # also beyond what the model was built for
        logits, state = step(model, torch.randint(VOCAB, (2, 1)), state)
    assert numbers(state) == before
    assert torch.isfinite(logits).all()


def test_a_kernel_of_free_form_forgets_what_is_beyond_its_reach() -> None:
    taps = torch.randn(DIM, 4)
    x = torch.randn(1, 9, DIM)
    state = Filter(taps).begin(x[:, :2], None)
    for place in range(2, 9):
        y, state = state.filter.step(x[:, place : place + 1], state)
    expected = (x[0, 5:9].flip(0).T * taps).sum(-1)
    torch.testing.assert_close(y[0, 0], expected)
    assert state.past.shape == (1, DIM, 3)


def test_attention_without_a_bias_for_the_distance_says_so() -> None:
    model = make_model("mega")
    _, state = prefill(model, torch.randint(VOCAB, (1, MAX_LENGTH)), room=5)
    with pytest.raises(ValueError, match=f"all {MAX_LENGTH} positions .* longer sequences"):
        step(model, torch.tensor([[1]]), state)


def test_the_latest_tokens_are_those_before_the_end() -> None:
    x = torch.arange(1.0, 11).view(2, 5, 1)
    assert recent(x, None, 2)[..., 0].tolist() == [[4, 5], [9, 10]]
    assert recent(x, torch.tensor([1, 4]), 3)[..., 0].tolist() == [[0, 0, 1], [7, 8, 9]]
    assert recent(x, None, 7)[0, :, 0].tolist() == [0, 0, 1, 2, 3, 4, 5]
    assert recent(x, torch.tensor([0, 5]), 0).shape == (2, 0, 1)


class NoSteps(torch.nn.Module):
    """A mixer of a user's own, without a recurrent form."""

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        return x.cumsum(1)


def test_what_cannot_go_on_says_why() -> None:
    ids = torch.randint(VOCAB, (1, 4))
    config = BackboneConfig(dim=DIM, depth=1, causal=True)
    sizes: dict[str, Any] = {"vocab_size": VOCAB, "input_dim": 1, "num_classes": VOCAB}
    with pytest.raises(ValueError, match=r"NoSteps has no form .* methods prefill and step"):
        prefill(TokenModel(config, NoSteps, **sizes).eval(), ids)
    with pytest.raises(ValueError, match=r"in training mode.*model\.eval\(\)"):
        prefill(make_model("default").train(), ids)
    for name in EVERY.keys() - CAUSAL.keys():
        if name != "no-attention":  # the parts that there are say it
            with pytest.raises(ValueError, match=r"not causal.*causal=True"):
                prefill(make_model(name, causal=False), ids)
    for name in ("transformer", "s4d", "mega", "linear_transformer", "default"):
        mixer, config_ = EVERY[name]
        with pytest.raises(ValueError, match="not causal"):
            Subject(mixer, config_).make_mixer(causal=False).prefill(
                torch.zeros(1, 3, DIM).double()
            )


@pytest.mark.interpreted
@pytest.mark.parametrize(
    "name", ["default", "no-path", "heads", "key-shift", "decay", "linear_transformer", "s4d"]
)
def test_the_kernels_go_on_as_plain_pytorch(name: str) -> None:
    """What a GPU computes by itself: prompts by the kernels, and steps of one token by them."""
    subject = Subject(*EVERY[name])
    mixer = subject.make_mixer(causal=True).eval().float()
    x, lengths = subject.inputs(2, 9).float(), torch.tensor([5, 2])
    with torch.no_grad():
        plain = mixer(x)
        use_kernels(mixer, "triton", torch.device("cpu"))
        assert (mixer(x) - plain).norm() < 1e-5 * plain.norm()
    assert error_of_steps(mixer, x, lengths) < 1e-5


@pytest.mark.interpreted
def test_a_model_with_kernels_answers_as_without() -> None:
    model = make_model("no-path", norm="rms").float()
    ids, lengths = torch.randint(VOCAB, (2, 8)), torch.tensor([5, 3])
    found = []
    for kernels in ("torch", "triton"):
        use_kernels(model, kernels, torch.device("cpu"))
        logits, state = prefill(model, ids[:, :5], lengths)
        found.append([logits])
        for place in range(2):
            logits, state = step(model, ids[[0, 1], lengths + place][:, None], state)
            found[-1].append(logits)
    for plain, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-5)
