"""Compile linear attention's kernels for a Hopper GPU on a machine without one; run as a script.

The interpreter runs what a compiler refuses, e.g. a variable of two shapes in two branches. Every
launch of the operators is turned into a compilation for compute capability 9.0; nothing is run.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from chela.kernels.linear_attention import (
    bidirectional_triton,
    causal_triton,
    decayed_triton,
)

SHARED_MEMORY = 227 * 1024  # bytes a program may have on a Hopper GPU


class Hopper:
    """As much of a driver as compiling asks for."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def fenced(ptx: str) -> bool:
    """Whether each wait for copies (cp.async) and the next product of shared memory have a fence.

    Without it the tensor cores, which read through another proxy, need not see what was copied.
    """
    after_waits = ptx.split("cp.async.wait_group")[1:]
    return not any("wgmma.mma" in part.split("fence.proxy.async")[0] for part in after_waits)


def compile_instead(kernel: JITFunction, grid: Any) -> Any:
    def launch(*arguments: Any, **options: Any) -> None:
        compiled = kernel.warmup(*arguments, grid=grid, **options)
        assert len(compiled.asm["cubin"]) > 0
        assert compiled.metadata.shared <= SHARED_MEMORY, kernel.__name__
        assert fenced(compiled.asm["ptx"]), f"{kernel.__name__}: no fence before wgmma"
        print(kernel.__name__)

    return launch


def main() -> None:
    driver.set_active(Hopper())
    JITFunction.__getitem__ = compile_instead
    everything = [(torch.bfloat16, 64, 32, True), (torch.float32, 16, 24, False)]
    for (dtype, dk, dv, full), causal in itertools.product(everything, (True, False)):
        q, k = (torch.zeros(1, 1100, 2, dk, dtype=dtype) for _ in range(2))
        v, gate = (torch.zeros(1, 1100, 2, dv, dtype=dtype) for _ in range(2))
        lengths = torch.tensor([1000]) if full else None
        epilogue = (torch.ones(dv), gate) if full else (None, None)
        if causal:
            state = torch.zeros(1, 2, dk, dv) if full else None
            out, _, *rest = causal_triton.causal_attention(q, k, v, lengths, state, *epilogue, True)
            causal_triton.causal_attention_backward(out, state, q, k, v, lengths, *epilogue, *rest)
            chunk = decayed_triton.chunk_of(k, v)
            decays = torch.zeros(1, 2, -(-1100 // chunk), chunk)
            qkv = (q[:, :, :1], k[:, :, :1], v, decays)
            out, _, *rest = decayed_triton.decayed_attention(*qkv, lengths, state, *epilogue, True)
            decayed_triton.decayed_attention_backward(out, state, *qkv, lengths, *epilogue, *rest)
        else:
            out, *rest = bidirectional_triton.bidirectional_attention(
                q, k, v, lengths, *epilogue, True
            )
            bidirectional_triton.bidirectional_attention_backward(
                out, q, k, v, lengths, *epilogue, *rest
            )


if __name__ == "__main__":
    main()
