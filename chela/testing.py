"""What every mixer keeps: padding, causality, gradients, bfloat16; ``chela test-model``.

Each check is a function of a ``Subject`` and of whether it is causal, which raises an
``AssertionError``. Mixers are small, in float64, and all parameters are off their initial values:
ones and zeros would hide a gain or a bias that is left out. A mixer may say of itself:

    local = True         its outputs see their neighbours alone, as a short convolution's do
    idle = ("shift_k",)  parameters that cannot have an effect with its choices
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chela.model import BackboneConfig, Classifier

DIM, VOCAB, CLASSES = 8, 11, 3
MAX_LENGTH = 23  # neither a power of two nor a multiple of the taps
GARBAGE = torch.tensor([-100, 10**6, 3, -1, 7, 0])


@dataclass(frozen=True)
class Subject:
    """A mixer with its choices, without dropout: no two calls share its draws."""

    mixer: Any  # the class
    config: Any  # an instance of its Config
    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(dim=DIM))

    def make_mixer(self, causal: bool = False, max_length: int = MAX_LENGTH) -> Any:
        """A mixer of its own weights, the same in each call."""
        torch.manual_seed(0)
        return unsettled(self._mixer(causal, max_length))

    def make_model(self, causal: bool = False) -> Classifier:
        """A classifier of two blocks, likewise."""
        torch.manual_seed(0)
        small = {"depth": 2, "dropout": 0.0, "causal": causal, "ffn_dim": None, "head_dim": None}
        model = Classifier(
            dataclasses.replace(self.backbone, **small),  # type: ignore[arg-type]
            lambda: self._mixer(causal, MAX_LENGTH),
            vocab_size=VOCAB,
            input_dim=1,
            num_classes=CLASSES,
        )
        return unsettled(model)

    def inputs(self, *shape: int) -> Tensor:
        """Numbers (*shape, D), the same in each call."""
        torch.manual_seed(1)
        return torch.randn(*shape, self.backbone.dim, dtype=torch.float64)

    def _mixer(self, causal: bool, max_length: int) -> nn.Module:
        mixer: nn.Module = self.mixer(self.backbone.dim, max_length, causal, self.config)
        return mixer


def padding_does_not_matter(subject: Subject, causal: bool) -> None:
    """Logits and gradients are the same, however far and with what a batch is padded."""
    model = subject.make_model(causal)
    other = copy.deepcopy(model)
    ids, lengths = ragged()
    longer = padded_further(ids, lengths)
    short, long = model(ids, lengths), other(longer, lengths)
    assert torch.isfinite(short).all(), "logits are not finite; one of the sequences is empty"
    torch.testing.assert_close(long, short, rtol=1e-10, atol=1e-10)
    longer_gradients = gradients(other, longer, lengths)
    for name, gradient in gradients(model, ids, lengths).items():
        torch.testing.assert_close(longer_gradients[name], gradient, rtol=1e-8, atol=1e-10)


def a_padded_sequence_is_what_it_is_alone(subject: Subject, causal: bool) -> None:
    """A sequence in a batch, NaN behind it, is mixed as it is by itself, in evaluation."""
    mixer = subject.make_mixer(causal).eval()
    x = subject.inputs(3, 17)
    lengths = torch.tensor([17, 9, 1])
    dirty = x.clone()
    dirty[torch.arange(17) >= lengths[:, None]] = float("nan")
    together = mixer(dirty, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = mixer(x[row : row + 1, :length])
        torch.testing.assert_close(together[row : row + 1, :length], alone, rtol=1e-9, atol=1e-10)


def outputs_see_what_they_may(subject: Subject, causal: bool) -> None:
    """Each output sees its token and all others; of a causal mixer none that comes later.

    In evaluation: in training the statistics of a batch may be of all tokens.
    """
    mixer = subject.make_mixer(causal).eval()
    x = subject.inputs(1, 12).requires_grad_()
    y = mixer(x)
    for t in range(12):
        (gradient,) = torch.autograd.grad(y[:, t].sum(), x, retain_graph=True)
        seen = gradient[0].norm(dim=-1)  # (12,)
        assert seen[t] > 1e-3, f"output {t} does not see its own token"
        if causal and t < 11:  # the FFT rounds; all else is exactly zero
            assert gradient[:, t + 1 :].abs().max() < 1e-13, f"output {t} sees a later token"
        first, last = (5, 7) if getattr(mixer, "local", False) else (0, 11)
        if t == 6:
            assert seen[first] > 1e-6, f"output 6 does not see token {first}; is it local = True?"
            assert causal or seen[last] > 1e-6, f"output 6 does not see token {last}"


def gradients_are_those_of_finite_differences(subject: Subject, causal: bool) -> None:
    """Backward computes the derivative of forward, of the input and of all parameters."""
    mixer = subject.make_mixer(causal, max_length=6)
    x = subject.inputs(2, 6).requires_grad_()
    lengths = torch.tensor([6, 4])
    mask = (torch.arange(6) < lengths[:, None])[..., None]

    def outputs(x: Tensor, *_: Tensor) -> Tensor:
        y: Tensor = mixer(x, lengths) * mask
        return y

    # fast_mode: along random directions, of the input and of all parameters at once
    assert torch.autograd.gradcheck(outputs, (x, *mixer.parameters()), fast_mode=True)


def every_parameter_is_trained(subject: Subject, causal: bool) -> None:
    """A batch's loss has a finite gradient for each parameter, and none that is zero."""
    model = subject.make_model(causal)
    idle = getattr(subject.make_mixer(causal), "idle", ())
    for name, gradient in gradients(model, *ragged(MAX_LENGTH)).items():
        assert gradient is not None, f"{name} is not used"
        assert torch.isfinite(gradient).all(), f"the gradient of {name} is not finite"
        acts = bool(gradient.norm() > 1e-12)
        assert acts is not name.endswith(tuple(idle)), f"{name} has an effect: {acts}; see idle"


def bfloat16_is_close_to_float64(subject: Subject, causal: bool) -> None:
    """Under autocast the result is bfloat16, a few roundings off, with finite gradients."""
    mixer = subject.make_mixer(causal)
    x = subject.inputs(2, 21)
    lengths = torch.tensor([21, 13])
    exact = mixer(x, lengths)
    narrow = copy.deepcopy(mixer).float()
    with torch.autocast("cpu", torch.bfloat16):
        y = narrow(x.float(), lengths)
    assert y.dtype == torch.bfloat16, f"the result is {y.dtype}"
    real = torch.arange(21) < lengths[:, None]
    error = (y.double() - exact)[real].norm() / exact[real].norm()
    assert error < 0.02, f"the error is {error:.3f}"  # a few roundings of 2^-9 each
    y[real].float().sum().backward()
    finite = all(torch.isfinite(p.grad).all() for p in narrow.parameters() if p.grad is not None)
    assert finite, "a gradient is not finite"


def steps_are_the_whole_sequence(subject: Subject, causal: bool) -> None:
    """A prompt at once and then a token at a time give what ``forward`` gives.

    Raises:
        NotImplementedError: the mixer has no such form, or is not causal.
    """
    mixer = subject.make_mixer(causal).eval()
    if not causal:
        raise NotImplementedError("it sees the whole sequence")
    if not hasattr(mixer, "step"):
        raise NotImplementedError("it has no prefill and step, so it cannot generate")
    x, lengths = subject.inputs(4, MAX_LENGTH), torch.tensor([9, 1, 5, 12])
    exact = mixer(x).detach()
    error = error_of_steps(mixer, x, lengths)
    assert error < 1e-9, f"they are off by {error:.1e} of the norm"
    with torch.autocast("cpu", torch.bfloat16):
        error = error_of_steps(mixer.float(), x.float(), lengths)
        rounding = float((mixer(x.float()).detach().double() - exact).norm() / exact.norm())
    # Some mixers round so often that two exact ways differ by more than 5e-3.
    most = max(5e-3, rounding)
    assert error < most, f"in bfloat16 they are off by {error:.1e} of the norm"


@torch.no_grad()
def error_of_steps(mixer: Any, x: Tensor, lengths: Tensor) -> float:
    """How far prompts of these lengths in one batch, and steps to the end, are from ``forward``.

    Args:
        mixer: that has ``prefill`` and ``step``.
        x: (B, L, D).
        lengths: (B,) of the prompts, behind which stands NaN.

    Returns:
        The norm of the difference at all tokens that were seen, over that of the outputs.
    """
    whole, longest = mixer(x), int(lengths.max())
    prompts = x[:, :longest].clone()
    prompts[torch.arange(longest) >= lengths[:, None]] = float("nan")
    y, state = mixer.prefill(prompts, lengths)
    found = whole.clone()
    found[:, :longest] = torch.where(prompts.isnan().any(-1, keepdim=True), found[:, :longest], y)
    rows = torch.arange(len(x))
    for place in range(x.shape[1] - longest):
        y, state = mixer.step(x[rows, lengths + place][:, None], state)
        assert y.dtype == whole.dtype, f"a step is {y.dtype}, the whole is {whole.dtype}"
        found[rows, lengths + place] = y[:, 0]
    return float((found.double() - whole.double()).norm() / whole.double().norm())


CHECKS: tuple[Callable[[Subject, bool], None], ...] = (
    padding_does_not_matter,
    a_padded_sequence_is_what_it_is_alone,
    outputs_see_what_they_may,
    gradients_are_those_of_finite_differences,
    every_parameter_is_trained,
    bfloat16_is_close_to_float64,
    steps_are_the_whole_sequence,
)


def without_dropout(config: Any) -> Any:
    """A mixer's choices with 0 for each key that has ``dropout`` in its name."""
    names = [each.name for each in dataclasses.fields(config) if "dropout" in each.name]
    return dataclasses.replace(config, **dict.fromkeys(names, 0.0))


def unsettled(module: Any) -> Any:
    """The module in float64, its parameters and statistics moved off their initial values."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    return module.double()


def ragged(length: int = 17) -> tuple[Tensor, Tensor]:
    """Token ids (5, length) and lengths, among them the whole length, one and zero."""
    torch.manual_seed(1)
    ids = torch.randint(0, VOCAB, (5, length))
    return ids, torch.tensor([length, 9, 1, 0, length - 1])


def padded_further(ids: Tensor, lengths: Tensor) -> Tensor:
    """The same sequences in a longer batch; every padded position holds garbage, no valid id."""
    longer = GARBAGE.repeat(ids.numel())[: len(ids) * MAX_LENGTH].view(len(ids), MAX_LENGTH).clone()
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    longer[:, : ids.shape[1]][mask] = ids[mask]
    return longer


def gradients(model: nn.Module, values: Tensor, lengths: Tensor) -> dict[str, Any]:
    """By parameter: the gradient of the loss of five samples."""
    F.cross_entropy(model(values, lengths), torch.tensor([0, 1, 2, 0, 1])).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}
