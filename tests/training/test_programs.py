"""How many programs a compiler makes of a model whose batches differ in length."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.testing import CompileCounterWithBackend

from chela.config.schema import compose_run
from chela.training import build
from chela.training.build import build_model, compile_blocks
from chela.training.engine import resolve
from tasks.base import TaskSpec

pytestmark = pytest.mark.compiler

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LONGEST = 96
SPEC = TaskSpec("short", num_classes=2, max_length=LONGEST, vocab_size=8, input_dim=1)
MODELS = ["chela", "s4d", "transformer"]  # sgconv and the linear one share their parts
SMALL = ["task=text", "model.dim=16", "model.ffn_dim=16", "model.depth=1", "logger=csv"]


def programs_of(name: str, one_for_all_lengths: bool, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Programs after training on three lengths, and after evaluation of two more batches."""
    counter = CompileCounterWithBackend("inductor" if DEVICE.type == "cuda" else "aot_eager")
    own = torch.nn.Module.compile
    monkeypatch.setattr(
        "torch.nn.Module.compile",
        lambda module, dynamic, options: own(module, dynamic=dynamic, backend=counter),
    )
    # what a kernel computes is not asked, and interpreted it would take longer than all compilers
    monkeypatch.setattr("triton.runtime.interpreter.InterpretedFunction.run", lambda *_, **__: None)
    config = compose_run([f"model={name}", *SMALL])
    model = build_model(config.model, SPEC, "triton", DEVICE).to(DEVICE)
    compile_blocks(model, one_for_all_lengths)

    def step(length: int) -> None:
        ids = torch.randint(1, 8, (2, length), device=DEVICE)
        lengths = torch.tensor([length, length - 3], device=DEVICE)
        with torch.autocast(DEVICE.type, torch.bfloat16):
            loss = F.cross_entropy(model(ids, lengths).float(), ids[:, 0] % 2)
        if torch.is_grad_enabled():
            loss.backward()

    for length in (32, 16, LONGEST):
        step(length)
    counts = [counter.frame_count]
    with torch.no_grad():
        for length in (48, LONGEST):
            step(length)
    return [*counts, counter.frame_count]


@pytest.mark.parametrize("name", MODELS)
def test_one_program_serves_batches_of_every_length(name, monkeypatch):
    assert programs_of(name, True, monkeypatch) == [2, 4]  # the block's and the last norm's


def test_else_each_length_has_its_own(monkeypatch):
    # which is asked of the compiler alone: the model that it compiles fastest will do
    assert programs_of("transformer", False, monkeypatch) == [6, 10]


def test_sums_over_channels_and_over_tokens_are_no_kernel_in_common(monkeypatch):
    """Whatever Inductor's default is: it is told so for every part that is compiled."""
    patched = []

    def compiler(graph, _, config_patches, **__):
        patched.append(config_patches)
        return graph.forward

    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", compiler)
    model = build_model(compose_run(["model=transformer", *SMALL]).model, SPEC)
    compile_blocks(model, one_for_all_lengths=True)
    model(torch.ones(2, 8, dtype=torch.long))
    known = hasattr(torch._inductor.config.triton, "mix_order_reduction")
    assert patched == 2 * [{"triton.mix_order_reduction": False} if known else {}]


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("deterministic", [True, False])
def test_a_run_has_one_program_unless_the_same_bits_are_asked_for(
    padded, deterministic, monkeypatch
):
    """The first length shapes a program for all: a resumed run would begin with another."""
    asked = []
    spy = lambda model, one_for_all_lengths: asked.append(one_for_all_lengths)  # noqa: E731
    monkeypatch.setattr(build, "compile_blocks", spy)
    form = [
        "trainer.accelerator=cpu",
        "trainer.step=compile",
        f"trainer.deterministic={deterministic}",
    ]
    config = compose_run(["model=chela", "trainer.accelerator=cpu", *SMALL, *form])
    build.build_module(config, SPEC, resolve(config), 1, padded)
    assert asked == [padded and not deterministic]
