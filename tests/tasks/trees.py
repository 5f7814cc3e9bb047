"""An independent reading of ListOps: the written text, parsed and evaluated in plain Python."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

APPLY = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: int(statistics.median(values)),
    "[SM": lambda values: sum(values) % 10,
}


@dataclass
class Tree:
    """What the parser saw of one tree."""

    value: int = -1
    length: int = 0  # symbols, round brackets apart
    depth: int = 0
    operators: list[str] = field(default_factory=list)
    arguments: list[int] = field(default_factory=list)  # of each operator
    digits: list[int] = field(default_factory=list)


def read_tree(source: str) -> Tree:
    """Parse ``( ( ( [MAX 3 ) 5 ) ] )`` as the left-nested binary tree that it is.

    An operator with n arguments opens n + 1 round brackets, then stands itself; each argument
    closes one, and ``]`` the last.
    """
    words = source.split(" ")
    tree = Tree()
    position = 0

    def take(expected: str | None = None) -> str:
        nonlocal position
        word = words[position]
        position += 1
        assert expected in (None, word), f"{word} at {position} instead of {expected}"
        return word

    def expression(depth: int) -> int:
        tree.depth = max(tree.depth, depth)
        tree.length += 1
        word = take()
        if word != "(":
            tree.digits.append(int(word))
            return int(word)
        opened = 1
        while (word := take()) == "(":
            opened += 1
        values = []
        for _ in range(opened - 1):
            values.append(expression(depth + 1))
            take(")")
        take("]")
        take(")")
        tree.length += 1
        tree.operators.append(word)
        tree.arguments.append(len(values))
        return APPLY[word](values)

    tree.value = expression(1)
    assert position == len(words), "something follows the tree"
    return tree
