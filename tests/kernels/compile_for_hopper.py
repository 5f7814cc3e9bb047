"""Compile linear attention's kernels for a Hopper GPU on a machine without one; run as a script.

The interpreter runs what a compiler refuses, e.g. a variable of two shapes in two branches. Every
launch of the operators is turned into a compilation for compute capability 9.0; nothing is run.
"""

from __future__ import annotations

import itertools
import re
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from triton import knobs
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


INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/ +(?:@!?U?P\w+ +)?(\S+) *(.*?) *;")
WRITES_UNIFORM = re.compile("U|S2UR|R2UR|CS2UR|REDUX|VOTE")
UNIFORM = re.compile(r"(g?desc\[)?\bUR(\d+)")


def code_of(cubin: bytes) -> bytes:
    """The instructions of a program, from the sections of its ELF file."""
    (table,) = struct.unpack_from("<Q", cubin, 40)
    size, count, names = struct.unpack_from("<3H", cubin, 58)
    sections = [struct.unpack_from("<2I4Q", cubin, table + size * place) for place in range(count)]
    return b"".join(
        cubin[start : start + length]
        for name, _, _, _, start, length in sections
        if cubin.startswith(b".text.", sections[names][4] + name)
    )


def instructions(cubins: list[bytes]) -> Iterator[list[tuple[str, str]]]:
    """Operation and operands of each program, by one start of a tool that begins for long."""
    codes = [code_of(cubin) for cubin in cubins]
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(b"".join(codes))
        file.flush()
        command = [knobs.nvidia.nvdisasm.path, "-b", "SM90a", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = INSTRUCTION.findall(text)
    assert 16 * len(found) == sum(map(len, codes))  # bytes
    rest = iter(found)
    for code in codes:
        yield list(itertools.islice(rest, len(code) // 16))


def unwritten(program: list[tuple[str, str]]) -> list[str]:
    """Instructions that read a uniform register which none before them has written.

    Where two tiles of different swizzles take turns in the same shared memory, ptxas 12.8 forgets
    the address of the second: its products then read what is anywhere, or end the program.
    """
    written: set[int] = set()
    found = []
    for operation, operands in program:
        reads, writes = set(), set()
        for place, operand in enumerate(operands.split(",")):
            for kind, number in UNIFORM.findall(operand):
                is_target = place == 0 and not kind and WRITES_UNIFORM.match(operation)
                pair = kind == "desc[" or (operation[0] == "U" and ".64" in operation)
                pair = pair or (is_target and "WIDE" in operation)
                wide = 4 if kind == "gdesc[" else 2 if pair else 1
                # where the other operand's tile is in registers, half of the four is not read
                first = int(number) + (2 if kind == "gdesc[" and place == 2 else 0)
                several = range(first, int(number) + wide)
                (writes if is_target else reads).update(several)
        if reads - written:
            found.append(f"{operation} {operands}")
        written |= writes
    return found


def compile_launches_of(main: Callable[[], None]) -> None:
    """Let ``main`` launch kernels, none of which runs; each is compiled, looked at, and named.

    Raises:
        AssertionError: a program that a Hopper GPU could not run, or would not run right.
    """
    compiled: list[tuple[str, bytes]] = []
    driver.set_active(Hopper())
    JITFunction.__getitem__ = lambda kernel, _: partial(compile_instead, kernel, compiled)
    main()
    names, cubins = zip(*compiled, strict=True)
    for name, program in zip(names, instructions(list(cubins)), strict=True):
        assert not unwritten(program), name
        print(name)


def compile_instead(
    kernel: JITFunction, compiled: list[tuple[str, bytes]], *arguments: Any, **options: Any
) -> None:
    made = kernel.warmup(*arguments, grid=(1,), **options)
    assert made.metadata.shared <= SHARED_MEMORY, kernel.__name__
    assert fenced(made.asm["ptx"]), f"{kernel.__name__}: no fence before wgmma"
    compiled.append((kernel.__name__, made.asm["cubin"]))


def forgets(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None = None,
    state: Tensor | None = None,
    epilogue: tuple[Tensor | None, Tensor | None] = (None, None),
) -> None:
    """Both directions of the form with a decay, whose q and k are one head's."""
    batch, length, heads, _ = v.shape
    chunk = decayed_triton.chunk_of(k, v)
    decays = torch.zeros(batch, heads, -(-length // chunk), chunk)
    given = (q, k, v, decays, state, *epilogue, lengths)
    out, _, *rest = decayed_triton.decayed_attention(*given, True)
    decayed_triton.decayed_attention_backward(out, state, *given, *rest)


def main() -> None:
    everything = [(torch.bfloat16, 64, 32, True), (torch.float32, 16, 24, False)]
    for (dtype, dk, dv, full), causal in itertools.product(everything, (True, False)):
        q, k = (torch.zeros(1, 1100, 2, dk, dtype=dtype) for _ in range(2))
        v, gate = (torch.zeros(1, 1100, 2, dv, dtype=dtype) for _ in range(2))
        lengths = torch.tensor([1000]) if full else None
        epilogue = (torch.ones(dv), gate) if full else (None, None)
        if causal:
            state = torch.zeros(1, 2, dk, dv) if full else None
            given = (q, k, v, state, *epilogue, lengths)
            out, _, *rest = causal_triton.causal_attention(*given, True)
            causal_triton.causal_attention_backward(out, state, *given, *rest)
            forgets(q[:, :, :1], k[:, :, :1], v, lengths, state, epilogue)
        else:
            given = (q, k, v, *epilogue, lengths)
            out, *rest = bidirectional_triton.bidirectional_attention(*given, True)
            bidirectional_triton.bidirectional_attention_backward(out, *given, *rest)
    for dk, dv in ((32, 16), (64, 32), (32, 64), (256, 64)):
        q, k, v = (torch.zeros(1, 1100, 1, d, dtype=torch.bfloat16) for d in (dk, dk, dv))
        forgets(q, k, v)


if __name__ == "__main__":
    compile_launches_of(main)
