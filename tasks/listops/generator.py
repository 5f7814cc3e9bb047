"""ListOps trees by the law of the Long Range Arena, the same for any number of processes.

The official generator has no seed and draws one tree after the other in Python. Here a block of
some thousand trees is drawn at once, level by level, as flat arrays; block b of a seed is a pure
function of (law, seed, b), so blocks can be computed anywhere and are used in their order.

The law (google-research/long-range-arena, lra_benchmarks/data/listops.py): a node above the last
depth is a digit with probability ``p_digit``, else an operator of 2 .. ``max_args`` arguments,
uniform like the operators and the digits; at the last depth it is a digit. A tree counts as long
as it has symbols (operators, digits, closing brackets); those with min_length < length <
max_length are kept, repeats dropped.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count, cycle
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks import bits
from tasks.errors import DataError
from tasks.listops.vocabulary import CLOSE, DIGIT, MAX, MED, MIN, OPERATOR, OPERATORS, SM
from tasks.signals import held_back
from tasks.storage.rows import Rows, offsets_of

# Trees drawn per block. Fixed: another number would make another data set of the same seed.
BLOCK = 4096
# Draws without PATIENCE_TREES new trees after which a law is given up.
PATIENCE_DRAWS = 256 * BLOCK
PATIENCE_TREES = 10

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class ListOpsLaw:
    """The parameters of the law; the defaults are those of the published task."""

    min_length: int = 500  # exclusive, in symbols
    max_length: int = 2000  # exclusive
    max_depth: int = 10  # of a node; the root has depth 1
    max_args: int = 10
    p_digit: float = 0.75


def generate(n: int, law: ListOpsLaw, seed: int, workers: int) -> Iterator[Rows]:
    """The first ``n`` distinct trees of ``seed``, block by block, see ``draw_block``.

    Args:
        n: trees in all.
        law: what trees there are.
        seed: 0 <= seed < 2**64; the trees depend on nothing else.
        workers: processes to draw with; 1 draws in this one.

    Raises:
        DataError: the law has not enough trees, or a worker process was killed.
    """
    seen: set[bytes] = set()
    draws = latest = fresh = 0
    # closed, and with it the processes, when this generator is left for whatever reason
    with closing(_blocks(law, seed, workers)) as blocks:
        while len(seen) < n:
            block = next(blocks)
            rows = block.select(_unseen(block, seen, n))
            draws += BLOCK
            fresh += len(rows.labels)
            if fresh >= PATIENCE_TREES:
                latest, fresh = draws, 0
            elif draws - latest >= PATIENCE_DRAWS and len(seen) < n:
                raise DataError(
                    f"{law} has too few trees: {len(seen):,} of {n:,} after {draws:,} draws.\n"
                    "  try: a wider range of lengths, a greater depth, or fewer samples"
                )
            yield rows


def draw_block(law: ListOpsLaw, seed: int, index: int) -> Rows:
    """Block ``index`` of a seed: of BLOCK draws the accepted ones, written out and evaluated.

    Returns:
        uint8 symbols (``vocabulary``) in the order of the text; repeats included.
    """
    stream = bits.stream(bits.LISTOPS_TREES, seed, index)
    levels = _measure(_draw_shapes(law, stream))
    length = levels[0].length
    accepted = (law.min_length < length) & (length < law.max_length)
    levels = _keep(levels, accepted)
    # What does not change a tree's length is drawn for the accepted ones only.
    symbols = [_draw_symbols(level, stream) for level in levels]
    return Rows(_write(levels, symbols), offsets_of(levels[0].length), evaluate(levels, symbols))


class Level(NamedTuple):
    """All nodes of one depth, tree after tree, from left to right."""

    is_operator: Flags  # (nodes,)
    arguments: Ints  # (operators,) number of arguments; they are the next level, in order
    length: Ints  # (nodes,) symbols of the whole subtree

    @property
    def first(self) -> Ints:
        """Where each operator's arguments begin in the next level (operators,)."""
        return np.cumsum(self.arguments) - self.arguments


def _draw_shapes(law: ListOpsLaw, stream: np.random.Philox) -> list[tuple[Flags, Ints]]:
    """Which nodes are operators, and of how many arguments, for each depth."""
    threshold = np.uint64(round((1 - law.p_digit) * 2**32))
    shapes = []
    tree = np.arange(BLOCK)  # (nodes,) the tree of each node of this depth
    nodes = np.zeros(BLOCK, dtype=np.int64)  # (BLOCK,) nodes of each tree so far
    for _ in range(law.max_depth - 1):
        raw = stream.random_raw(len(tree))
        # A tree with max_length nodes is too long whatever follows: it grows no further, so that
        # memory is bounded under any law.
        nodes += np.bincount(tree, minlength=BLOCK)
        is_operator = (bits.high(raw) < threshold) & (nodes < law.max_length)[tree]
        arguments = 2 + bits.below(bits.low(raw[is_operator]), law.max_args - 1)
        shapes.append((is_operator, arguments))
        tree = np.repeat(tree[is_operator], arguments)
    shapes.append((np.zeros(len(tree), dtype=np.bool_), np.zeros(0, dtype=np.int64)))
    return shapes


def _measure(shapes: list[tuple[Flags, Ints]]) -> list[Level]:
    """The levels with their lengths, found from the deepest up."""
    levels: list[Level] = []
    for is_operator, arguments in reversed(shapes):
        level = Level(is_operator, arguments, np.ones(len(is_operator), dtype=np.int64))
        if len(arguments):
            level.length[is_operator] = 2 + np.add.reduceat(levels[-1].length, level.first)
        levels.append(level)
    return levels[::-1]


def _keep(levels: list[Level], keep: Flags) -> list[Level]:
    """The levels of those trees only whose root is kept."""
    kept = []
    for is_operator, arguments, length in levels:
        operators = keep[is_operator]
        kept.append(Level(is_operator[keep], arguments[operators], length[keep]))
        keep = np.repeat(operators, arguments)
    return kept


def _draw_symbols(level: Level, stream: np.random.Philox) -> Ints:
    """Each node's digit, or its operator's place in OPERATORS (nodes,)."""
    choices = np.where(level.is_operator, np.uint64(len(OPERATORS)), np.uint64(10))
    return bits.below(bits.high(stream.random_raw(len(choices))), choices)


def _write(levels: list[Level], symbols: list[Ints]) -> NDArray[np.uint8]:
    """The trees as text: operator, arguments, closing bracket; one tree after the other."""
    text = np.full(levels[0].length.sum(), CLOSE, dtype=np.uint8)  # what nothing overwrites: ]
    position = offsets_of(levels[0].length)[:-1]  # (nodes,) of each node's first symbol
    for depth, (level, symbol) in enumerate(zip(levels, symbols, strict=True)):
        text[position] = symbol + np.where(level.is_operator, OPERATOR, DIGIT)
        if not len(level.arguments):
            break
        length = levels[depth + 1].length
        before = np.cumsum(length) - length  # of all nodes to the left, and in this operator:
        shift = position[level.is_operator] + 1 - before[level.first]
        position = before + np.repeat(shift, level.arguments)
    return text


def evaluate(levels: list[Level], symbols: list[Ints]) -> Ints:
    """The value of each tree's root (trees,), found from the deepest level up.

    Args:
        levels: all of them, the roots first; their lengths have no part in it.
        symbols: of each level, a digit or an operator's place in OPERATORS (nodes,).
    """
    values: list[Ints] = []
    for level, symbol in zip(reversed(levels), reversed(symbols), strict=True):
        value = symbol.copy()
        if len(level.arguments):
            value[level.is_operator] = _apply(symbol[level.is_operator], values[-1], level)
        values.append(value)
    return values[-1]


def _apply(operator: Ints, values: Ints, level: Level) -> Ints:
    """Each operator's result (operators,) from its stretch of ``values`` (arguments in all,)."""
    owner = np.repeat(np.arange(len(operator)), level.arguments)
    ordered = np.sort(owner * 16 + values) % 16  # within each operator's stretch
    first, last = level.first, level.first + level.arguments - 1
    middle = (ordered[(first + last) // 2] + ordered[(first + last + 1) // 2]) // 2
    result = np.empty_like(operator)
    for code, value in (
        (MIN, ordered[first]),
        (MAX, ordered[last]),
        (MED, middle),
        (SM, np.add.reduceat(values, first) % 10),
    ):
        np.copyto(result, value, where=operator == code)
    return result


def _unseen(rows: Rows, seen: set[bytes], n: int) -> Flags:
    """Which trees are new (trees,), until there are ``n``; they are added to ``seen``."""
    new = np.zeros(len(rows.labels), dtype=np.bool_)
    text = rows.values.tobytes()
    bounds = rows.offsets.tolist()
    for tree in range(len(new)):
        if len(seen) == n:
            break
        digest = blake2b(text[bounds[tree] : bounds[tree + 1]], digest_size=16).digest()
        new[tree] = digest not in seen
        seen.add(digest)
    return new


def _blocks(law: ListOpsLaw, seed: int, workers: int) -> Generator[Rows, None, None]:
    """All blocks in order, without end; some are computed ahead by other processes.

    Each has a pipe of its own, in which its next block waits until it is taken. So a process that
    is killed ends its pipe, in the midst of a block too, and keeps nothing that others wait for:
    with a queue that all share, what it had not finished writing was waited for without end.
    """
    yield draw_block(law, seed, 0)  # here: a small data set needs no other processes
    if workers == 1:
        yield from (draw_block(law, seed, index) for index in count(1))
    context = multiprocessing.get_context("spawn")  # works beside threads (those of torch, say)
    resource_tracker.ensure_running()  # else the first process starts it, and that admits Ctrl-C
    started: list[tuple[Connection, SpawnProcess]] = []
    try:
        for first in range(1, workers + 1):
            reader, writer = context.Pipe(duplex=False)
            process = context.Process(
                target=_draw, args=(writer, law, seed, first, workers), daemon=True
            )
            with held_back({signal.SIGINT}):  # it is for this process alone
                process.start()
            writer.close()  # the process alone has it then
            started.append((reader, process))
        for reader, _ in cycle(started):
            yield _received(reader)
    finally:
        for reader, process in started:
            process.kill()
            process.join()
            reader.close()


def _draw(writer: Connection, law: ListOpsLaw, seed: int, first: int, step: int) -> None:
    """In another process: every ``step``-th block, when the one before has been taken."""
    with suppress(BrokenPipeError):  # its parent is gone
        for index in count(first, step):
            writer.send(draw_block(law, seed, index))


def _received(reader: Connection) -> Rows:
    try:
        rows: Rows = reader.recv()
    except (EOFError, OSError) as error:
        raise DataError(
            "a process that generated ListOps trees was killed, perhaps for want of memory.\n"
            "  try: task.workers=1"
        ) from error
    return rows
