"""The whole model with the Triton kernels against the same model in plain PyTorch."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chela.kernels import choice, use_kernels
from chela.kernels.tokens import NO_NORM
from chela.layers.basic import Dropout
from chela.layers.norms import make_norm
from chela.mixers import ChelaMixer
from chela.mixers.chela.gates import SiluGate
from chela.model.block import Block
from chela.model.ffn import GLU, MLP
from chela.testing import DIM, MAX_LENGTH, ragged, unsettled
from tests.kernels.comparison import assert_close
from tests.model.variants import BACKBONES, MIXERS, make_mixer, make_model, mixer_config

pytestmark = pytest.mark.interpreted

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # on a CPU interpreted
TARGETS = torch.tensor([0, 1, 2, 0, 1], device=DEVICE)
NORMS = ["layer-pre", "rms-pre", "batch-pre", "scale-pre", "layer-post"]
CASES = [("no-path", name) for name in (*NORMS, "glu", "no-ffn")] + [
    ("default", "layer-pre"),
    ("mega-gate", "layer-pre"),
    ("no-attention", "layer-pre"),
    ("only-attention", "layer-pre"),
    ("relu", "layer-pre"),
    ("heads", "rms-pre"),
]


TOKEN_WISE = ("norm_linear", "query_key", "token_mlp")


def with_kernels(module: nn.Module) -> nn.Module:
    """A copy in float32 whose token-wise operations run on the kernels, and only they."""
    module = copy.deepcopy(module).float().to(DEVICE)
    for part in module.modules():
        if getattr(part, "operation", None) in TOKEN_WISE and part.has_triton:
            part.implementation = "triton"
    return module


def batch(padded: bool) -> tuple[Tensor, Tensor | None]:
    ids, lengths = ragged()
    return ids.to(DEVICE), lengths.to(DEVICE) if padded else None


def everything(model: nn.Module, ids: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
    """Logits, gradients, and what the batch leaves in the buffers."""
    logits = model(ids, lengths)
    F.cross_entropy(logits, TARGETS).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {"logits": logits.detach(), **gradients, **dict(model.named_buffers())}


def errors(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """Relative, but for what is nearly zero."""
    return {
        name: float((tensor.double() - true).norm() / true.norm().clamp(min=1e-3))
        for (name, tensor), true in zip(actual.items(), expected.values(), strict=True)
    }


@pytest.mark.parametrize(
    ("mixer", "backbone", "padded"),
    [(*case, True) for case in CASES] + [("no-path", "batch-pre", False)],
)
def test_logits_and_gradients_are_those_of_plain_pytorch(mixer, backbone, padded):
    """As near to float64 as plain PyTorch in float32 is, within a small factor."""
    model = make_model(MIXERS[mixer], BACKBONES[backbone]).train().to(DEVICE)
    plain = everything(copy.deepcopy(model).float(), *batch(padded))
    kernels = everything(with_kernels(model), *batch(padded))
    expected = everything(model, *batch(padded))
    allowed = 2e-5 + 4 * max(errors(plain, expected).values())  # two blocks of 1e-5 each
    assert allowed < 1e-3
    for name, error in errors(kernels, expected).items():
        assert error < allowed, name


@pytest.mark.parametrize("backbone", ["layer-pre", "batch-pre", "glu"])
def test_autocast_leaves_parameters_and_their_gradients_wide(backbone):
    model = make_model(MIXERS["no-path"], BACKBONES[backbone]).train().to(DEVICE)
    expected = everything(model, *batch(True))
    with torch.autocast(DEVICE, torch.bfloat16):
        actual = everything(with_kernels(model), *batch(True))
    for name, tensor in actual.items():
        if name != "logits":
            assert tensor.dtype == torch.float32, name
    error = actual["logits"].double() - expected["logits"]
    assert error.norm() < 0.03 * expected["logits"].norm()  # two blocks of rounded activations


def block(norm: str, dropout: float) -> Block:
    torch.manual_seed(0)
    ffn = MLP(DIM, 2 * DIM, dropout)
    return Block(make_mixer(conv_path="none"), ffn, DIM, norm, True, dropout).double()


def test_a_block_compiles_as_one_graph():
    fused = with_kernels(block("layer", 0.0))
    backend = "inductor" if DEVICE == "cuda" else "aot_eager"
    compiled = torch.compile(fused, fullgraph=True, backend=backend)
    x = torch.randn(2, 7, DIM, device=DEVICE, requires_grad=True)
    results = []
    for form in (fused, compiled):
        y = form(x, torch.tensor([7, 4], device=DEVICE))
        results.append([y, *torch.autograd.grad(y.square().sum(), [x, *fused.parameters()])])
    for mine, true in zip(*results, strict=True):
        assert_close(mine, true.double(), 1e-5)


def test_dropout_acts_in_training_only_and_keeps_the_mean():
    fused = with_kernels(block("layer", 0.2))
    x = torch.randn(1, 12, DIM, device=DEVICE)
    clean = fused.eval()(x)
    assert torch.equal(fused(x), clean)
    fused.train()
    with torch.no_grad():
        first, second = fused(x), fused(x)
    assert not torch.equal(first, second)
    x = x.expand(20, -1, -1)
    with torch.no_grad():
        added = torch.cat([fused.ffn.add_to(x, NO_NORM, None, 0.2) - x for _ in range(4)])
    expected = fused.ffn.eval()(x[:1])[0]
    assert (added.mean(0) - expected).abs().max() < 5 * added.std() / len(added) ** 0.5


@pytest.mark.parametrize("norm", ["layer", "rms", "batch", "scale"])
@pytest.mark.parametrize("training", [True, False])
def test_norms_say_what_they_do_to_each_token(norm, training):
    module = make_norm(norm, 5).double().train(training)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.linspace(0.5, 2, parameter.numel()))
    other = copy.deepcopy(module)
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    mask = torch.arange(4) < torch.tensor([4, 0, 2])[:, None]
    said = other.per_token(x, mask)
    torch.testing.assert_close(said.naive(x)[mask], module(x, mask)[mask])
    for mine, true in zip(other.buffers(), module.buffers(), strict=True):
        torch.testing.assert_close(mine, true)  # statistics are taken once


WIDTH = 16  # fills the narrowest tile: no drawback


def wide_block(prenorm: bool, norm: str, dropout: float = 0.0) -> Block:
    torch.manual_seed(0)
    config = mixer_config(qk_dim=WIDTH, dropout=dropout, conv_path="none")
    mixer = ChelaMixer(WIDTH, MAX_LENGTH, False, config)
    ffn = MLP(WIDTH, 2 * WIDTH, dropout)
    return unsettled(Block(mixer, ffn, WIDTH, norm, prenorm, dropout))


@pytest.mark.parametrize(("prenorm", "norm"), [(True, "batch"), (True, "layer"), (False, "scale")])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_auto_takes_every_kernel_and_is_plain_pytorch_within_bf16(
    monkeypatch, prenorm, norm, dropout
):
    """In evaluation; outputs and the gradient of x, under autocast."""
    monkeypatch.setattr(choice, "choose", lambda asked, device: "triton")  # as on a GPU
    block = wide_block(prenorm, norm, dropout).eval().to(DEVICE)
    x, dy = torch.randn(2, 5, 17, WIDTH, dtype=torch.float64, device=DEVICE)
    lengths = ragged()[1].to(DEVICE)

    def results(block: Block, x: Tensor) -> list[Tensor]:
        x = x.clone().requires_grad_()
        y = block(x, lengths)
        return [y.detach().double(), torch.autograd.grad((y * dy).sum(), x)[0].double()]

    expected = results(block, x)
    narrow = copy.deepcopy(block).float()
    with torch.autocast(DEVICE, torch.bfloat16):
        plain = results(narrow, x.float())
        use_kernels(narrow, "auto", torch.device(DEVICE))
        found = {m.implementation for m in narrow.modules() if hasattr(m, "operation")}
        assert found == {"triton"}
        kernels = results(narrow, x.float())
    for ours, theirs, true in zip(kernels, plain, expected, strict=True):
        error, allowed = (ours - true).norm(), 1.5 * (theirs - true).norm()
        assert 0 < error < allowed < 0.02 * true.norm()


@pytest.mark.parametrize(("prenorm", "tied"), [(True, False), (False, False), (True, True)])
def test_a_step_with_dropout_has_the_gradient_of_its_own_masks(prenorm, tied):
    block = with_kernels(wide_block(prenorm, "layer", 0.3)).train()
    for module in block.modules():
        if isinstance(module, Dropout):
            module.tied = tied
    x, direction = torch.randn(2, 2, 17, WIDTH, device=DEVICE)

    def total(x: Tensor) -> Tensor:
        torch.manual_seed(3)  # the same masks
        return block(x, None).square().mean()

    step = 1e-2
    with torch.no_grad():
        assert total(x) == total(x)
        slope = (total(x + step * direction) - total(x - step * direction)) / (2 * step)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(total(x), x)
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=0.01)


def test_what_has_no_kernel_says_so():
    for part in (MLP(513, 4, 0.0), GLU(513, 4, 0.0), SiluGate(513, 4, 0.0)):
        assert part.kernel_obstacle() == (
            "D=513: the token-wise Triton kernels serve up to 512 channels"
        )
    assert MLP(512, 4, 0.0).kernel_obstacle() is None
    for part in (MLP(160, 320, 0.0), GLU(160, 320, 0.0), SiluGate(160, 320, 0.0)):
        assert part.kernel_drawback() == (
            "160 x 320 channels are padded to 256 x 320: torch.compile is faster"
        )
    for part in (ChelaMixer(128, 7), ChelaMixer(128, 7).attention.query_key, MLP(128, 256, 0.0)):
        assert part.kernel_drawback() is None
    assert make_mixer().kernel_obstacle() is None
    for out in ({"gate": "mega", "conv_path": "none"}, {"conv_path": "glu"}):
        mixer = with_kernels(make_mixer(**out))
        assert not mixer.fuses_residual
        with pytest.raises(ValueError, match="no kernel has these ways out; call the mixer"):
            mixer.add_to(torch.zeros(1, MAX_LENGTH, DIM), NO_NORM, None, 0.2)
