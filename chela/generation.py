"""What a language model says next: prompts at once, then a token at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from chela.errors import RunError
from chela.hub import LoadedRun
from chela.mixers.stepping import State, steps_left
from chela.model import Model, TokenModel
from chela.model.encoders import TokenEncoder
from chela.model.recorded import RecordedStep
from chela.model.stepping import prefill, step, steppable
from tasks.errors import first_line

BROKEN = "\N{REPLACEMENT CHARACTER}"  # of a character whose bytes are not all there yet


def generate(
    model: TokenModel,
    prompts: Sequence[Sequence[int]],
    count: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
) -> Iterator[Tensor]:
    """Continue token sequences, all at the same time.

    Args:
        model: in eval mode, causal; see ``check``.
        prompts: B sequences of token ids, each of its own length.
        count: how many tokens each gets.
        temperature: the logits are divided by; 0: the most likely token, always.
        top_k: only the so many most likely tokens can come; None: all.
        seed: of the draws; they do not depend on the device but for its rounding.

    Yields:
        The next token of each sequence (B,), on the CPU, ``count`` times.

    Raises:
        RunError: the model cannot do it, a prompt is empty or has an unknown token, there are more
            tokens than the model can tell apart or memory has place for, or a number is none.
    """
    _check_prompts(check(model), prompts)
    _check_draws(count, temperature, top_k, seed)
    if not count:
        return
    device = next(model.parameters()).device
    lengths = torch.tensor([len(each) for each in prompts])
    values = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.long)
    for row, prompt in zip(values, prompts, strict=True):
        row[: len(prompt)] = torch.as_tensor(prompt)
    ragged = None if (lengths == values.shape[1]).all() else lengths.to(device)
    try:
        logits, state = prefill(model, values.to(device), ragged, room=count)
    except ValueError as error:
        raise RunError(f"the prompt cannot be read: {error}") from error
    except RuntimeError as error:
        if "allocate" not in str(error):  # torch has a class for it on a GPU alone
            raise
        raise RunError(
            f"memory is short for a prompt of {values.shape[1]:,} tokens and {count:,} more, which "
            f"have their places from the beginning: {first_line(error)}\n"
            "  try: fewer tokens, or a model whose state does not grow"
        ) from error
    steps = count - 1  # the last token is not read
    if (left := steps_left(state)) < steps:
        raise RunError(
            f"the model tells apart {values.shape[1] + left:,} tokens, and {values.shape[1]:,} of "
            f"the prompt and {count:,} more were asked for.\n  try: tokens={left + 1:,} at most"
        )
    draws = torch.Generator().manual_seed(seed)
    choose = partial(choice, temperature=temperature, top_k=top_k, draws=draws)
    if steps:
        read = reader_of(model, state, len(prompts))
    for place in range(count):
        tokens = choose(logits)  # (B,)
        yield tokens
        if place < steps:
            logits = read(tokens[:, None].to(device))


def reader_of(model: TokenModel, state: State, batch: int) -> Callable[[Tensor], Tensor]:
    """What reads the next token of each sequence (B, 1): the logits behind it (B, classes).

    Args:
        model: in eval mode.
        state: of ``prefill``; it is the reader's from now on.
        batch: how many sequences.
    """
    if next(model.parameters()).is_cuda:
        return RecordedStep(model, state, batch)

    def read(tokens: Tensor) -> Tensor:
        nonlocal state
        logits, state = step(model, tokens, state)
        return logits

    return read


def choice(logits: Tensor, temperature: float, top_k: int | None, draws: torch.Generator) -> Tensor:
    """One token of each row of logits (B, classes), (B,), on the CPU."""
    logits = logits.float().cpu()
    if temperature == 0:
        return logits.argmax(-1)
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    behind = logits - logits.amax(-1, keepdim=True)  # of any size divided by any temperature,
    shares = (behind.double() / temperature).softmax(-1).float()  # which float32 may not hold
    return torch.multinomial(shares, 1, generator=draws)[:, 0]


def continuation(
    run: LoadedRun,
    prompt: str,
    count: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
) -> Iterator[str]:
    """What a run's model says behind a prompt, piece by piece; see ``generate``.

    Raises:
        RunError: see there.
        DataError: see ``Task.prompt_of``.
    """
    model = check(run.model)
    tokens = [int(each) for each in run.task.prompt_of(prompt)]
    latest, text, shown = [*tokens], "", run.task.text_of(tokens)
    known = len(latest)  # of them, whose text is shown
    for (token,) in generate(model, [tokens], count, temperature, top_k, seed):
        latest.append(int(token))
        text = run.task.text_of(latest)
        if not text.endswith(BROKEN) and text.startswith(shown):
            yield text[len(shown) :]
            latest = latest[known:]  # behind which the next ones are read, not behind the whole
            known, text = len(latest), run.task.text_of(latest)
            shown = text
    yield text[len(shown) :]


def check(model: Model) -> TokenModel:
    """The model, if it can go on a token at a time.

    Raises:
        RunError: it cannot; the message says why.
    """
    try:
        return steppable(model)
    except ValueError as error:
        raise RunError(f"this model cannot generate: {error}") from error


def _check_draws(count: int, temperature: float, top_k: int | None, seed: int) -> None:
    for name, value, least, end in (
        ("count", count, 0, math.inf),
        ("temperature", temperature, 0, math.inf),
        ("top_k", 1 if top_k is None else top_k, 1, math.inf),
        ("seed", seed, 0, 2**63),
    ):
        if not least <= value < end:  # also of what is no number
            above = f", and less than {end:,}" if value >= least else ""
            raise RunError(f"{name}={value}: it must be {least} or more{above}")


def _check_prompts(model: TokenModel, prompts: Sequence[Sequence[int]]) -> None:
    if not len(prompts) or not all(map(len, prompts)):  # they may be one tensor (B, L)
        raise RunError("the prompt is empty, but a model goes on from a token at least")
    encoder = model.backbone.encoder
    if not isinstance(encoder, TokenEncoder):
        raise RunError("the model takes real values, and has no tokens to go on with")
    known = encoder.embedding.num_embeddings
    for token in (token for prompt in prompts for token in prompt):
        if not 0 <= token < known:
            raise RunError(f"token {token} is unknown: the model has those from 0 to {known - 1:,}")
