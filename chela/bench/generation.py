"""Speed and memory of generation against the prompt's length, beside the Transformer's cache.

    chela bench-generation                                   prompts of 1K, 2K, ... 64K tokens
    chela bench-generation --models chela,transformer --prompts 1024,4096 --batch 8
    chela bench-generation --device cpu --prompts 64,128 --tokens 8 model.dim=32 model.depth=2

Models are causal, of bytes, with the sizes of ``configs/model/`` and the keys given, and have the
weights they start with. ``NAME/KERNEL`` is CHELA with that long kernel. Each reads a prompt of
random bytes, all at once, and then as many more as ``--tokens``, each the most likely one, in
bfloat16 on a GPU, where a step is one CUDA graph. Written are generation.{csv,md,png}, the second
for docs/generation.md as it is.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TypeVar

import pandas as pd
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from chela.bench.lines import draw_lines
from chela.bench.measure import now
from chela.bench.words import count, counts, device_of, machine, parser_of, refuse_model
from chela.config.schema import ModelConfig, compose_run
from chela.disk import given_folder
from chela.errors import RunError
from chela.generation import check, reader_of
from chela.mixers.stepping import State
from chela.model import TokenModel
from chela.model.stepping import prefill
from chela.records.files import write_text
from chela.records.format import human, size
from chela.training.build import build_model, free_memory
from tasks.base import TaskSpec

MODELS = "chela,chela/s4d,chela/ema,linear_transformer,s4d,mega_chunk,transformer"
PROMPTS = [2**power for power in range(10, 17)]  # 1K to 64K
BYTES = 256
T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    """What a model needs behind a prompt of one length."""

    model: str
    prompt: int  # tokens
    prefill: float  # tokens of the prompt per second, of all sequences together
    steps: float  # new tokens per second, of all sequences together
    state_bytes: int  # of a sequence
    weight_bytes: int  # that stepping has prepared beside the model's own


MEASURES: dict[str, Callable[[Cost], str]] = {
    "Generated, tokens/s": lambda cost: human(cost.steps),
    "Prompt read, tokens/s": lambda cost: human(cost.prefill),
    "State of a sequence": lambda cost: size(cost.state_bytes),
    "Weights prepared for steps, beside the model's own": lambda cost: size(cost.weight_bytes),
}


def composed(name: str, overrides: Sequence[str]) -> ModelConfig:
    """The configuration of ``chela/s4d``, or of another model."""
    model, _, kernel = name.partition("/")
    own = [f"model.mixer.long_conv_kernel={kernel}"] if kernel else []
    words = ["task=mqar", f"model={model}", "model.causal=true", *own, *overrides]
    return compose_run(words).model


def built(config: ModelConfig, length: int, device: torch.device) -> TokenModel:
    """A causal model of bytes, for ``length`` tokens."""
    spec = TaskSpec("bytes", BYTES, length, BYTES, input_dim=1, objective="tokens")
    torch.manual_seed(0)
    return check(build_model(config, spec, "auto", device).to(device).eval())


@torch.no_grad()
def cost_of(name: str, config: ModelConfig, prompt: int, options: argparse.Namespace) -> Cost:
    """Read a prompt and go on from it, each twice, and time the second.

    Raises:
        torch.OutOfMemoryError: it does not fit.
    """
    device = torch.device(options.device)
    if device.type == "cuda":
        free_memory(device)
    room = 2 * options.tokens
    model = built(config, prompt + room, device)
    values = torch.randint(BYTES, (options.batch, prompt), device=device)
    with _narrow(device):
        reading, (logits, state) = _seconds(lambda: prefill(model, values, room=room), device)
        first = logits.argmax(-1, keepdim=True)
        held = {id(each): each for each in tree_leaves(state)}.values()
        own = sum(each.nbytes for each in held if isinstance(each, Tensor))
        shared = sum(_weight_bytes(each) for each in held if not isinstance(each, Tensor))
        going, _ = _seconds(_steps(model, state, first, options.tokens), device)
    return Cost(
        name,
        prompt,
        values.numel() / reading,
        options.batch * options.tokens / going,
        own // options.batch,
        shared,
    )


def _steps(model: TokenModel, state: State, first: Tensor, tokens: int) -> Callable[[], Tensor]:
    read = reader_of(model, state, len(first))

    def go() -> Tensor:
        following = first
        for _ in range(tokens):
            following = read(following).argmax(-1, keepdim=True)
        return following

    return go


def _narrow(device: torch.device) -> torch.autocast | nullcontext[None]:
    # without its cache of narrow weights, which a graph would find gone
    if device.type != "cuda":
        return nullcontext()
    return torch.autocast("cuda", torch.bfloat16, cache_enabled=False)


def _weight_bytes(shared: object) -> int:
    taps = getattr(shared, "taps", None)
    return taps.nbytes if isinstance(taps, Tensor) else 0


def _seconds(call: Callable[[], T], device: torch.device) -> tuple[float, T]:
    """Of the second call, and what it returned."""
    call()
    began = now(device)
    result = call()
    return now(device) - began, result


def as_markdown(costs: Sequence[Cost], facts: str) -> str:
    """For each measure a table: a row per model, a column per prompt; — where it did not fit."""
    prompts = sorted({cost.prompt for cost in costs})
    head = f"| prompt (tokens) | {' | '.join(f'{each:,}' for each in prompts)} |"
    lines = [facts]
    for title, show in MEASURES.items():
        lines += ["", f"**{title}**", "", head, "|---|" + "---|" * len(prompts)]
        for model in dict.fromkeys(cost.model for cost in costs):
            known = {cost.prompt: show(cost) for cost in costs if cost.model == model}
            cells = " | ".join(known.get(each, "—") for each in prompts)
            lines.append(f"| {model} | {cells} |")
    return "\n".join(lines) + "\n"


def draw(costs: Sequence[Cost], file: Path, title: str) -> None:
    """Speed and the state's size against the prompt's length, a line per model."""
    points = [(cost.model, cost.prompt, cost.steps, cost.state_bytes / 2**20) for cost in costs]
    labels = ("prompt (tokens)", "generated (tokens/s)", "state of a sequence (MiB)")
    draw_lines(points, labels, file, title)


def costs_of(options: argparse.Namespace, overrides: Sequence[str]) -> Iterator[Cost]:
    """Each model at each prompt, until the memory ends; printed as they come."""
    for model in options.models.split(","):
        config = composed(model, overrides)
        for prompt in options.prompts:
            try:
                cost = cost_of(model, config, prompt, options)
            except torch.OutOfMemoryError:
                print(f"{model:20} {prompt:9,}  does not fit", flush=True)
                break
            speeds = f"{human(cost.prefill):>9} read {human(cost.steps):>9} generated tokens/s"
            print(f"{model:20} {prompt:9,} {speeds} {size(cost.state_bytes):>10}", flush=True)
            yield cost


def main(arguments: Sequence[str]) -> None:
    """Measure, print and write what the command line asks for.

    Raises:
        RunError: there is no GPU, or nothing fits.
    """
    parser = parser_of("bench-generation", __doc__)
    parser.add_argument("--models", default=MODELS, help="some of them")
    parser.add_argument("--prompts", type=counts, default=PROMPTS, help="in tokens, ascending")
    parser.add_argument("--tokens", type=count, default=128, help="that follow")
    parser.add_argument("--batch", type=count, default=1, help="sequences at the same time")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--output", type=given_folder, default=Path("outputs/generation"))
    options, overrides = parser.parse_known_args(arguments)
    refuse_model(overrides, "--models <some of them>")
    facts = (
        f"{machine(device_of(options.device))}, {date.today()}; "
        f"{options.batch} at a time, {options.tokens} new tokens; "
        f"`{' '.join(['chela bench-generation', *arguments])}`"
    )
    print(facts)
    found = [*costs_of(options, overrides)]
    if not found:
        raise RunError("no model fits.\n  try: shorter --prompts, or a smaller --batch")
    options.output.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(map(asdict, found))
    write_text(options.output / "generation.csv", frame.to_csv(index=False, lineterminator="\n"))
    write_text(options.output / "generation.md", as_markdown(found, facts))
    draw(found, options.output / "generation.png", facts.split(";")[0])
    print(f"written to {options.output}")
