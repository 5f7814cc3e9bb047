"""The command line of a measuring command, and on what it measures."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Sequence

import torch

from chela.errors import ConfigError, RunError
from chela.records.environment import hardware, versions


def parser_of(name: str, said: str | None) -> ArgumentParser:
    """Of ``chela NAME``, whose help begins with what its module says."""
    form = RawDescriptionHelpFormatter
    return ArgumentParser(prog=f"chela {name}", description=said, formatter_class=form)


def refuse_model(overrides: Sequence[str], remedy: str) -> None:
    """Refuse a choice of model among the keys of every model: each row would be of that one.

    Raises:
        ConfigError: with the remedy.
    """
    for word in overrides:
        if word.lstrip("+").startswith("model="):
            raise ConfigError(f"{word} would take the place of every model.\n  try: {remedy}")


def machine(device: torch.device) -> str:
    """``"NVIDIA H200, torch 2.11.0"``; without a GPU the processor."""
    found = hardware(device)
    return f"{found.get('gpu') or found['cpu']}, torch {versions()['torch']}"


def device_of(name: str) -> torch.device:
    """The device that ``--device`` names.

    Raises:
        RunError: cuda, and torch finds no GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise RunError("torch finds no GPU.\n  try: --device cpu")
    return torch.device(name)


def shape(text: str) -> tuple[int, int, int]:
    """``"8x2048x512"`` as batch, length and channels.

    Raises:
        ArgumentTypeError: it is something else.
    """
    numbers = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", text, re.ASCII)
    if numbers is None:
        raise ArgumentTypeError(f"{text!r} is no BxLxD, such as 8x2048x512")
    batch, length, channels = map(int, numbers.groups())
    return batch, length, channels


def count(text: str) -> int:
    """``"1024"`` as a number.

    Raises:
        ArgumentTypeError: it is none from 1 up.
    """
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no number from 1 up")
    return int(text)


def counts(text: str) -> list[int]:
    """``"1024,4096"`` as numbers.

    Raises:
        ArgumentTypeError: one of them is none from 1 up.
    """
    return [count(each) for each in text.split(",")]
