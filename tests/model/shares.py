"""``python -m tests.model.shares``: models whose sequences several processes hold, beside one.

All processes are forks of one that has imported everything. Printed is a line of JSON: of each
number of processes and each case the largest error of outputs and of any gradient; and what they
sent to each other, and the least there is. ``torchrun ... -m tests.model.shares rounding`` holds
the kernels in bf16 against float64, those of one process and of all.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from chela.bench.exchange import exchanged, least_of_a_step
from chela.kernels.choice import use_kernels
from chela.layers.processes import alone, processes
from chela.layers.sequence import own_positions, part, parts, replicas, share_sequences
from chela.mixers import ChelaConfig, ChelaMixer
from chela.mixers.over_shares import Shares
from chela.model import BackboneConfig, Classifier, TokenModel
from chela.objectives.base import Objective
from chela.objectives.classification import Classification
from chela.objectives.tokens import Tokens
from chela.testing import CLASSES, DIM, MAX_LENGTH, VOCAB, unsettled
from tasks.storage.rows import NOTHING
from tests.model.baseline_variants import BASELINES, subject
from tests.model.variants import BACKBONES, CAUSAL, MIXERS, make_model, mixer_config

LENGTHS = torch.tensor([17, 9, 1, 0, 12, 17, 3, 8])
# What four processes could do otherwise than two.
FEW = (
    "default",
    "decay-and-shift",
    "branch-batchnorm",
    "linear_transformer",
    "s4d",
    "batch-pre",
    "pooled-norm",
)
FEW = (*FEW, "mean", "last", "max", "tokens", "some tokens")
# Choices of what each token does by itself.
TOKEN_WISE = ("identity", "elu1", "relu", "mega-gate", "no-gate", "linear-path", "no-path")
SPLIT = [name for name in BASELINES if not name.startswith(("transformer", "mega"))]


def classifiers() -> Iterator[tuple[str, nn.Module]]:
    """Every choice of a mixer that can be split, and of a backbone."""
    for causal in (False, True):
        kind = "causal" if causal else "both ways"
        for name, choices in (MIXERS | (CAUSAL if causal else {})).items():
            if causal and name in TOKEN_WISE:
                continue
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


def linear_answers(model: nn.Module, values: Tensor, lengths: Tensor) -> list[Tensor]:
    """Logits, and the gradients of a fixed sum of them: no error of theirs is in these."""
    model.zero_grad()
    logits = model(values, lengths)
    weights = torch.arange(logits.numel(), device=logits.device).view_as(logits) - 2.0
    (logits.double() * weights * (part() == 0)).sum().backward()
    found = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([each.flatten().double() for each in found])
    if processes() > 1:
        dist.all_reduce(flat)
    return [logits.detach().double(), *flat.split([each.numel() for each in found])]


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


def traffic() -> dict[str, list[int]]:
    """Of operations by themselves, bytes that all sent, forward and backward, and the least."""
    found = {}
    length = 64
    names = ("only-short-conv", "only-long-conv", "only-attention", "branch-batchnorm")
    for causal in (False, True):
        for name in (*names, "only-decay") if causal else names:
            model = make_mixer_alone(name, causal, length)
            x = torch.randn(2, length // parts(), DIM, dtype=torch.float64, requires_grad=True)
            with exchanged() as counted:
                model(x).sum().backward()
            sent = torch.tensor(counted.sequences)
            dist.all_reduce(sent)
            least = least_of_a_step(model, Shares(2, length, parts(), x.element_size()))
            found[f"{name}, {'causal' if causal else 'both ways'}"] = [sent.item(), least]
    return found


def make_mixer_alone(name: str, causal: bool, length: int) -> nn.Module:
    more = {
        "only-short-conv": {"use_long_conv": False, "use_attention": False},
        "only-decay": {**MIXERS["only-attention"], **CAUSAL["decay"]},
    }
    choices = (MIXERS | more)[name]
    torch.manual_seed(0)
    return unsettled(ChelaMixer(DIM, length, causal, mixer_config(**choices)))


def rounding() -> None:
    """Print of each form the largest error in bf16 against float64, on one device and on all."""
    on_gpu = torch.cuda.is_available()
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("cuda", rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo", rank=rank, world_size=world)
    share_sequences(world)
    dim, length = (128, 4096) if on_gpu else (16, 64)
    found = {}
    for causal, norm in itertools.product((False, True), ("layer", "batch")):
        torch.manual_seed(0)
        config = BackboneConfig(dim=dim, depth=2, dropout=0.0, causal=causal, norm=norm)
        choices = ChelaConfig(branch_norm="batch" if norm == "batch" else "none")
        model = Classifier(
            config,
            partial(ChelaMixer, dim, length, causal, choices),
            vocab_size=VOCAB,
            input_dim=1,
            num_classes=CLASSES,
        ).to(device)
        batch = torch.randint(0, VOCAB, (2, length), device=device)
        lengths = torch.tensor([length, 3 * length // 4 + 5], device=device)
        use_kernels(model, "auto", device)
        with alone(), torch.autocast(device.type, torch.bfloat16):
            one = linear_answers(model, batch, lengths)
        with torch.autocast(device.type, torch.bfloat16):
            several = linear_answers(model, batch, lengths)
        use_kernels(model, "torch", device)
        with alone():
            exact = linear_answers(model.double(), batch, lengths)
        found[f"{norm}, causal {causal}"] = [
            (error(a, c), error(b, c))
            for a, b, c in zip(one, several, exact, strict=True)
            if c.norm() > 1e-6
        ]
    if rank == 0:
        print(json.dumps(found))
    dist.destroy_process_group()


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
    found = {"errors": worst, "traffic": traffic()}
    if rank == 0:
        (place / f"{world}-{devices}.json").write_text(json.dumps(found))
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
    rounding() if "rounding" in sys.argv else main()
