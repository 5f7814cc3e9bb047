"""Names for the configurations of one model, so that two of them are never taken for one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chela.records.collect import Run

LONGEST = 44  # characters of a label; beyond, a table has no room for it


@dataclass(frozen=True)
class Variant:
    """All runs of a model in one column that may be averaged: one configuration, the same data."""

    column: str
    identity: str  # of the configuration, the seed apart
    fingerprint: str  # of the data
    choices: Mapping[str, Any]  # the configuration, flat
    departures: Collection[str] | None = None  # keys that its recipe has otherwise, if there is one
    name: str = ""  # that its runs were given; empty where they have the usual one, or several
    neutral: Collection[str] = ()  # keys that do nothing in it, or that are younger

    @classmethod
    def of(cls, column: str, runs: Sequence[Run], keys: Iterable[str]) -> Variant:
        """That of runs which differ in their seeds alone, by the choices of ``keys``."""
        first = runs[0]
        usual = f"{first.text('config.task.name')}-{first.model}"
        names = {run.text("config.name") or "" for run in runs}
        given = names.pop() if len(names) == 1 and usual not in names else ""
        choices = first.values([*keys, *(first.departures or ())])
        neutral = choices.keys() - first.choices.keys()
        return cls(
            column, first.identity, first.fingerprint, choices, first.departures, given, neutral
        )

    @property
    def is_recipe(self) -> bool:
        """Whether it is that of its task and model, on whatever data of the task."""
        departures = self.departures
        return departures is not None and all(key.startswith("task.") for key in departures)

    @property
    def folder(self) -> str:
        """As the runs' folder is called, without the usual name: ``"mine-1203577f"``."""
        folder = f"{self.name}-{self.identity}"
        return folder if self.name and len(folder) <= LONGEST else self.identity

    @property
    def unlike(self) -> str:
        """What its recipe has otherwise, the task's keys apart; empty if that is not known."""
        keys = [key for key in self.departures or () if not key.startswith("task.")]
        return describe(self.choices, keys)

    def behind(self, rivals: Sequence[Variant]) -> str:
        """What a hash in its name stands for, beside the others of its column and itself."""
        if text := describe(self.choices, differing(rivals)):
            return text
        if len(rivals) == 1:
            return self.unlike or "its record does not say what its recipe had otherwise"
        if sum(each.identity == self.identity for each in rivals) > 1:
            return "the same configuration as another row, other data"
        others = ", ".join(each.folder for each in rivals if each.identity != self.identity)
        return f"as {others} in all keys that both have; one is of another version of this project"


def labels(variants: Sequence[Variant]) -> list[str]:
    """What distinguishes each variant of one model, in the order given.

    - The recipe of a task and model: nothing (``""``). So the recipes of all tasks are one row, and
      where there is one, nothing else is in that row.
    - Another one alone in its column: the label of a row whose every choice it shares if there is
      exactly one such row, so that an ablation of one task still fills one row. Else nothing, or
      beside recipes what it has unlike its own.
    - Else the choices that differ within the column, ``"depth=3"``: the same sweep over several
      tasks has the same labels in each, and its rows line up.
    - Where these are too long: those in which a variant differs from the recipe, or from most of
      its column where that is not known. So the rows of an ablation say what is left out, and the
      whole model says nothing.
    - Where that is too long, or not unique, or none differ: the name that the runs were given, and
      the configuration's hash, as in the folder's name.
    - Where the configuration is the same and the data are not: the data's fingerprint too.
    """
    columns: dict[str, list[Variant]] = {}
    for variant in variants:
        columns.setdefault(variant.column, []).append(variant)
    beside = any(each.is_recipe for each in variants)
    found: dict[str, dict[str, Any]] = {}  # label -> the choices that it states
    several: dict[str, Iterator[str]] = {}
    for column, group in columns.items():
        keys = differing(group)
        posing = [beside and not each.is_recipe for each in group]  # as recipes, without a label
        texts = [
            text or (each.unlike if poses else "")
            for each, poses, text in zip(group, posing, _descriptions(group, keys), strict=True)
        ]
        named = []
        for variant, poses, text in zip(group, posing, texts, strict=True):
            is_clear = keys and len(text) <= LONGEST and texts.count(text) == 1
            if not is_clear or (poses and not text):
                text = _by_hash(variant, group)
            elif text:
                found[text] = {key: variant.choices[key] for key in keys}
            named.append(text)
        several[column] = iter(named)
    return [
        _alone(variant, found, beside)
        if len(columns[variant.column]) == 1
        else next(several[variant.column])
        for variant in variants
    ]


def differing(variants: Sequence[Variant]) -> list[str]:
    """The keys that all of them have and not all have the same value of, in order of appearance.

    One that does nothing in any of them has no value to tell them apart by: it may be null in the
    records that are older than it.
    """
    first = variants[0].choices
    return [
        key
        for key in first
        if all(key in each.choices for each in variants)
        and not all(key in each.neutral for each in variants)
        and len({_text(each.choices[key]) for each in variants}) > 1
    ]


def describe(choices: Mapping[str, Any], keys: Sequence[str]) -> str:
    """``"depth=3, lr=0.01"``: the values of ``keys``, each by the shortest name that is clear."""
    ends = [key.rpartition(".")[2] for key in keys]
    return ", ".join(
        f"{end if ends.count(end) == 1 else key}={_text(choices[key])}"
        for key, end in zip(keys, ends, strict=True)
    )


def _descriptions(column: Sequence[Variant], keys: Sequence[str]) -> list[str]:
    """Of each variant, by all keys; where one is too long, by those unlike the usual."""
    recipes = [each for each in column if each.is_recipe]
    recipe = min(recipes, key=lambda each: len(each.departures or ()), default=None)
    whole = [describe(each.choices, keys) for each in column]
    if all(len(text) <= LONGEST for text in whole):
        return [
            "" if each is recipe and whole.count(text) == 1 else text
            for each, text in zip(column, whole, strict=True)
        ]
    unusual = [each.departures for each in column if each.departures is not None]
    if recipe is not None:
        unusual = [differing([recipe, each]) for each in column]
    elif len(unusual) < len(column):
        unusual = _unlike_most(column, keys)
    return [
        describe(each.choices, [key for key in keys if key in its])
        for each, its in zip(column, unusual, strict=True)
    ]


def _unlike_most(column: Sequence[Variant], keys: Sequence[str]) -> list[Collection[str]]:
    """The keys of each variant whose value more than half of the column have otherwise, or none."""
    counts = {key: Counter(_text(each.choices[key]) for each in column) for key in keys}
    return [
        {key for key in keys if 2 * counts[key][_text(each.choices[key])] <= len(column)}
        for each in column
    ]


def _by_hash(variant: Variant, column: Sequence[Variant]) -> str:
    same = [each for each in column if each.identity == variant.identity]
    data = f", data {variant.fingerprint[:8]}" if len(same) > 1 else ""
    return f"{variant.folder}{data}"


def _alone(variant: Variant, found: Mapping[str, Mapping[str, Any]], beside: bool) -> str:
    if variant.is_recipe:
        return ""
    # compared as text: in Python 1 and True are equal, in a configuration they are not
    choices = {key: _text(value) for key, value in variant.choices.items()}
    fits = [
        label
        for label, stated in found.items()
        if all(choices.get(key) == _text(value) for key, value in stated.items())
    ]
    if len(fits) == 1:
        return fits[0]
    if not beside:
        return ""
    return variant.unlike if 0 < len(variant.unlike) <= LONGEST else variant.folder


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
