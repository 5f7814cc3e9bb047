"""Autocast on a GPU widens functions that it leaves alone on a CPU; the models must bear both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from chela.config.schema import compose_run
from chela.training.build import build_model
from tasks.base import TaskSpec

CONFIGS = Path(__file__).parents[2] / "configs"
MODELS = sorted(file.stem for file in (CONFIGS / "model").glob("*.yaml"))
# PyTorch's list of what CUDA's autocast computes in float32, where our models could use it.
WIDENED = {
    *("cosh", "cumprod", "cumsum", "exp", "expm1", "layer_norm", "log", "log10", "log1p", "log2"),
    *("log_softmax", "logsumexp", "norm", "pow", "prod", "reciprocal", "rsqrt", "sinh"),
    *("softmax", "softplus", "sum", "tan"),
}


class WideningLikeCuda(TorchFunctionMode):
    """Calls functions of ``WIDENED`` with float32 where autocast is on."""

    def __init__(self) -> None:
        super().__init__()
        self.met: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        # A dtype that is asked for stays: the rule is only for calls without.
        asked = kwargs is not None and kwargs.get("dtype") is not None
        if name in WIDENED and not asked and torch.is_autocast_enabled("cpu"):
            self.met.add(name)
            args = tuple(
                x.float() if isinstance(x, torch.Tensor) and x.dtype == torch.bfloat16 else x
                for x in args
            )
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_trains_with_functions_widened_as_on_a_gpu(name: str, causal: bool) -> None:
    config = compose_run(["task=text", f"model={name}", f"model.causal={causal}"])
    spec = TaskSpec("random", num_classes=3, max_length=40, vocab_size=9, input_dim=1)
    model = build_model(config.model, spec)
    values, lengths = torch.randint(1, 9, (2, 40)), torch.tensor([40, 23])
    with WideningLikeCuda() as mode, torch.autocast("cpu", torch.bfloat16):
        logits = model(values, lengths)
    logits.float().square().sum().backward()
    assert mode.met
    assert logits.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
