"""``python -m tests.model.shares``: models whose sequences several processes hold, beside one.

All processes are forks of one that has imported everything. Printed is a line of JSON: of each
number of processes and each case the largest error of outputs and of any gradient.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from chela.layers.processes import alone, processes
from chela.layers.sequence import own_positions, part, parts, replicas, share_sequences
from chela.mixers import ChelaMixer
from chela.model import BackboneConfig, TokenModel
from chela.objectives.base import Objective
from chela.objectives.classification import Classification
from chela.objectives.tokens import Tokens
from chela.testing import CLASSES, DIM, MAX_LENGTH, VOCAB, unsettled
from tasks.storage.rows import NOTHING
from tests.model.baseline_variants import BASELINES, subject
from tests.model.variants import BACKBONES, MIXERS, make_model, mixer_config

LENGTHS = torch.tensor([17, 9, 1, 0, 12, 17, 3, 8])
# What four processes could do otherwise than two.
FEW = ("default", "branch-batchnorm", "linear_transformer", "s4d", "batch-pre", "pooled-norm")
FEW = (*FEW, "mean", "last", "max", "tokens", "some tokens")
SPLIT = [name for name in BASELINES if not name.startswith(("transformer", "mega"))]


def classifiers() -> Iterator[tuple[str, nn.Module]]:
    """Every choice of a mixer that can be split, and of a backbone."""
    for causal in (False, True):
        kind = "causal" if causal else "both ways"
        for name, choices in MIXERS.items():
            yield f"{name}, {kind}", make_model(choices, {}, causal=causal)
        for name in SPLIT:
            yield f"{name}, {kind}", subject(name).make_model(causal)
    for name, choices in BACKBONES.items():
        yield name, make_model({}, choices)


def token_model(causal: bool) -> nn.Module:
    torch.manual_seed(0)
    return unsettled(
        TokenModel(
            BackboneConfig(dim=DIM, depth=2, dropout=0.0, causal=causal, norm="batch"),
            lambda: ChelaMixer(DIM, MAX_LENGTH, causal, mixer_config()),
            vocab_size=VOCAB,
            input_dim=1,
            num_classes=VOCAB,
        )
    )


def cases() -> Iterator[tuple[str, nn.Module, Objective, Tensor, Tensor | None, Tensor]]:
    """Name, model, objective, values, lengths and targets of a batch of 8."""
    torch.manual_seed(1)
    ids = torch.randint(0, VOCAB, (8, 17))
    classes = torch.randint(0, CLASSES, (8,))
    objective = Classification(CLASSES)
    for name, model in classifiers():
        yield name, model, objective, ids, LENGTHS, classes
        if name.startswith(("default", "linear_transformer", "mean")):
            yield f"{name}, not padded", model, objective, ids, None, classes
    for name, pooling in (("mean", "mean"), ("last", "last"), ("max", "max")):
        model = make_model({}, {"pooling": pooling, "norm": "batch"})
        whole = torch.randint(0, VOCAB, (8, MAX_LENGTH))
        yield f"{name}, as long as can be", model, objective, whole, None, classes
    signal = torch.randn(8, 16, 2, dtype=torch.float64)
    yield "values", make_model({}, {}, tokens=False), objective, signal, None, classes
    asked = torch.where(torch.rand(8, 17) < 0.4, ids, NOTHING)
    for causal in (False, True):
        tokens = token_model(causal)
        yield f"tokens {causal}", tokens, Tokens(VOCAB), ids, LENGTHS, asked
        few = torch.where((asked != NOTHING).cumsum(1) <= 4, asked, NOTHING)
        yield f"some tokens {causal}", tokens, Tokens(VOCAB, answers=4), ids, None, few


def answers(
    model: nn.Module, objective: Objective, values: Tensor, lengths: Tensor | None, targets: Tensor
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Logits, sums of losses, hits and targets over all processes, and the loss's gradients."""
    model.zero_grad()
    logits, asked = objective.ask(model, values, lengths, targets)
    flat = asked.flatten()
    losses = F.cross_entropy(
        logits.flatten(0, -2), flat, reduction="none", ignore_index=NOTHING
    )  # in float64
    losses.sum().backward()
    sums = torch.stack([losses.detach().sum(), *(x.double().sum() for x in _hits(logits, flat))])
    weights = list(model.parameters())
    found = [sums, *(torch.zeros_like(p) if p.grad is None else p.grad for p in weights)]
    flat = torch.cat([each.flatten() for each in found])
    if processes() > 1:
        dist.all_reduce(flat)
    sums, *found = flat.split([each.numel() for each in found])
    return logits.detach(), sums, list(found)


def _hits(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    return logits.flatten(0, -2).argmax(-1) == targets, targets != NOTHING


def error(found: Tensor, expected: Tensor) -> float:
    size = expected.norm().item()
    return (found - expected).norm().item() / size if size > 1e-12 else found.norm().item()


def compared(case: tuple[Any, ...]) -> float:
    """The largest relative error against one process, of outputs, sums, gradients, averages."""
    _, model, objective, values, lengths, targets = case
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with alone():
        logits, sums, expected = answers(model, objective, values, lengths, targets)
    averages = [value.clone() for value in model.buffers()]
    model.load_state_dict(before)
    size = len(values) // replicas()
    mine = slice(dist.get_rank() // parts() * size, (dist.get_rank() // parts() + 1) * size)
    of_mine = None if lengths is None else lengths[mine]
    own, own_sums, found = answers(model, objective, values[mine], of_mine, targets[mine])
    logits = logits[mine]
    if objective.per_sample:
        errors = [error(own, logits)]
    elif objective.answers is None:
        real = own_positions(torch.ones_like(values[mine]))  # what is held beyond is padding
        if of_mine is not None:
            real *= own_positions((torch.arange(values.shape[1]) < of_mine[:, None]).long())
        errors = [error(own * real[..., None], own_positions(logits) * real[..., None])]
    else:
        errors = []
    errors += [error(own_sums, sums)]
    errors += [error(a, b) for a, b in zip(found, expected, strict=True)]  # of each weight
    errors += [error(a, b) for a, b in zip(model.buffers(), averages, strict=True)]
    return max(errors)


def process(rank: int, world: int, devices: int, place: Path) -> None:
    store = f"file://{place}/store-{world}-{devices}"
    dist.init_process_group("gloo", store, rank=rank, world_size=world)
    share_sequences(devices)
    worst = {}
    for case in cases():
        if world > 2 and not case[0].startswith(FEW):
            continue
        largest = torch.tensor(compared(case), dtype=torch.float64)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        worst[case[0]] = largest.item()
    if rank == 0:
        (place / f"{world}-{devices}.json").write_text(json.dumps(worst))
    assert part() == rank % devices
    dist.destroy_process_group()


def main() -> None:
    torch.set_num_threads(1)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for world, devices in ((2, 2), (4, 4), (4, 2)):
            children = []
            for rank in range(world):
                child = os.fork()
                if child == 0:
                    status = 1
                    try:
                        process(rank, world, devices, Path(folder))
                        status = 0
                    finally:
                        sys.stderr.flush()
                        os._exit(status)
                children.append(child)
            statuses = [os.waitpid(child, 0)[1] for child in children]
            assert not any(statuses), statuses
            found[f"{world}/{devices}"] = json.loads(
                (Path(folder) / f"{world}-{devices}.json").read_text()
            )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
