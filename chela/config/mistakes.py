"""Plain mistakes in what a person types, or writes into a file of the configuration.

Hydra reads both, with a grammar of its own; here its riddles become a sentence and a remedy.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from traceback import walk_tb
from typing import Any

import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from chela.config.choices import CONFIGS, EXPERIMENT, SWEEP, offered, own_folders, without_own
from chela.errors import ConfigError, suggestion

HOW = "key=value, without blanks around =; --help lists the keys"
VARIED = "hydra.sweeper.params"  # in a file of the group sweep
NAMED = re.compile(r"[~+]{0,2}\w[\w/@-]*(\.[\w@-]+)*$")  # how a key looks


def refuse_mistyped(words: Sequence[str], with_flags: bool = True) -> None:
    """Look at the words of a command that Hydra is going to read.

    Args:
        words: flags, ``group=choice``, ``key=value``.
        with_flags: whether there may be others than ``--config-dir``.

    Raises:
        ConfigError: Hydra cannot read a word, or would not say what is wrong with it.
    """
    parser = get_args_parser()
    parser.exit_on_error, parser.allow_abbrev = False, False
    try:
        flags, unknown = parser.parse_known_args(list(words))
    except argparse.ArgumentError as error:
        flag = (error.argument_name or "").split("/")[0]
        raise ConfigError(f"{flag}: {error.message}.\n  try: --help lists the flags") from error
    for folder in own_folders(words):
        if not folder.is_dir():
            raise ConfigError(
                f"--config-dir {folder}: there is no such folder (seen from {Path.cwd()}).\n"
                "  try: the folder that holds yours of the groups, model/ or task/"
            )
    choices = offered()
    for word in unknown:
        if word.startswith("-"):
            raise ConfigError(_unknown_flag(word, words, choices))
    if not with_flags and (known := [word for word in without_own(words) if word[:1] == "-"]):
        raise ConfigError(
            f"{known[0]} is a flag of chela train.\n  try: group=choice and key=value alone"
        )
    overrides = [*flags.overrides, *(word for word in unknown if not word.startswith("-"))]
    if whole := _torn(overrides):
        raise ConfigError(f"a blank has torn {whole} apart.\n  try: {_quoted(whole)}")
    several = flags.multirun or "hydra.mode=MULTIRUN" in overrides
    for word in overrides:
        refuse_override(word, several, choices)


def refuse_override(word: str, several: bool, choices: dict[str, list[str]]) -> None:
    """Look at one ``group=choice`` or ``key=value``.

    Raises:
        ConfigError: see ``refuse_mistyped``.
    """
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise ConfigError(_unreadable(word, choices)) from error
    group, typed = override.key_or_group, word.partition("=")[2]
    if not group:
        raise ConfigError(_unreadable(word, choices))
    if override.is_interval_sweep():
        raise ConfigError(f"{word} has no end of values.\n  try: {group}=range(0,3), or a list")
    if f"{group}.".startswith(f"{VARIED}.") and not override.is_delete():
        key = group.removeprefix(VARIED).strip(".") or "seed"
        values = typed.strip("'\"") if group != VARIED else "0,1"
        raise ConfigError(
            f"{word}: {VARIED} is for files; what a sweep varies is typed as it is.\n"
            f"  try: chela train -m {_quoted(f'{key}={values}')}"
        )
    if override.is_sweep_override():
        if several:
            return
        remedy = f"chela train -m {_quoted(word)} for a run of each"
        if group not in choices:
            remedy += f", or {_quoted(f'{group}=[{typed}]')} for one list"
        raise ConfigError(
            f"{word} lists several values, but this is a single run.\n  try: {remedy}"
        )
    value: Any = override.value()
    if isinstance(value, str) and (variable := re.match(r"\$\w+", value)):
        remedy = _quoted(f"{group}={os.path.expandvars(value)}")
        raise ConfigError(f"{word}: only the shell knows {variable[0]}.\n  try: {remedy}")
    if group in choices and override.is_delete():
        raise ConfigError(
            f"{word}: {group} cannot be left out. Choices: {', '.join(choices[group])}"
        )
    if group in choices and (override.is_add() or override.is_force_add()) and group != SWEEP:
        bare = _quoted(word.lstrip("+"))
        raise ConfigError(f"{word}: + is for what is not there yet.\n  try: {bare}")
    if group in (SWEEP, "search") and not override.is_add():
        remedy = f"train -m +{word}" if group == SWEEP else f"search {word}"
        raise ConfigError(f"{word} is for several runs.\n  try: chela {remedy}")
    is_group = group in choices or ("/" in group and not override.is_delete())
    if not is_group or isinstance(value, str | dict):
        return
    offered_here = choices.get(group, [])
    if isinstance(value, list):
        remedy = f"-m {group}={','.join(map(str, value))} for a run of each"
        raise ConfigError(f"{word} lists several, but a run has one.\n  try: {remedy}")
    if typed in offered_here:  # a file that is named like a number
        raise ConfigError(f"{word} is read as a number.\n  try: {_as_text(group, typed)}")
    remedy = f" To choose nothing, leave {group}= out." if value is None else ""
    known = f" {suggestion(typed, offered_here or choices)}."
    raise ConfigError(f"there is no {word}.{known}{remedy}")


def while_composing(error: BaseException) -> bool:
    """Whether an exception is Hydra's own, about files and words, and not one of our code."""
    names = (str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(error.__traceback__))
    packages = [name.partition(".")[0] for name in names]
    ours = [index for index, name in enumerate(packages) if name in ("chela", "tasks", "__main__")]
    return isinstance(error, Exception) and "hydra" in packages[ours[-1] + 1 if ours else 0 :]


def in_a_file(error: BaseException, words: Sequence[str]) -> str | None:
    """What is wrong with a file of the configuration that cannot be read; None: nothing is."""
    if isinstance(error, UnicodeDecodeError):
        file = next((each for each in _files(words) if not _is_utf8(each)), None)
        said = f"{file} is not written in UTF-8.\n  try: save it as UTF-8"
        return None if file is None else said
    if isinstance(error, RecursionError):
        return "the defaults of the chosen files go round in a circle: one of them names itself"
    mark = getattr(error, "problem_mark", None)
    if not isinstance(error, yaml.MarkedYAMLError) or mark is None:
        return _malformed(words)
    problem, place = str(error.problem), f"{mark.name}, line {mark.line + 1}"
    if "'\\t'" in problem:
        return f"{place}: a tab, which YAML does not take.\n  try: blanks in place of tabs"
    if "duplicate key" in problem:
        key = problem.removeprefix("found duplicate key ")
        return f"{place}: the key '{key}' stands there a second time.\n  try: one of the two"
    if "mapping values are not allowed" in problem:
        return f"{place}: a second ': ' in one value.\n  try: the value in quotes"
    return f"{place}: {problem}.\n  try: look at that line; its quotes, brackets and indentation"


def _malformed(words: Sequence[str]) -> str | None:
    """What stands in a file that the words choose where it cannot; None where all is well."""
    groups = offered()
    for word in words:
        group, _, choice = word.lstrip("+").partition("=")
        folders = [*own_folders(words), CONFIGS] if group in groups else []
        files = (folder / f"{group}/{choice}.yaml" for folder in folders)
        file = next((each for each in files if each.is_file()), None)
        content = {} if file is None else yaml.safe_load(file.read_text("utf-8")) or {}
        if not isinstance(content, dict):
            return f"{file} has no keys at its top.\n  try: lines like key: value"
        defaults = content.pop("defaults", [])
        if not isinstance(defaults, list) or not all(map(_is_default, defaults)):
            return (
                f"{file}: defaults must be a list of names and of choices by name.\n"
                "  try: defaults: [demo, override /model: s4d]"
            )
        for key, value in content.items():
            if group in (EXPERIMENT, SWEEP) and key in groups and not isinstance(value, dict):
                choice = value or "<choice>"
                return (
                    f"{file}: {key}: {value} puts a value where a section is.\n"
                    f"  try: defaults: [override /{key}: {choice}], or {key}: {{a_key: value}}"
                )
    return None


def _is_default(entry: Any) -> bool:
    values = list(entry.values()) if isinstance(entry, dict) else [entry]
    return all(isinstance(each, str) or (each is None and len(values) == 1) for each in values)


def _torn(words: Sequence[str]) -> str | None:
    """What the shell has made several words of, such as ``seed=0, 1`` and ``seed = 1``."""
    for index, word in enumerate(words):
        if _reads(word) and not word.endswith("="):
            continue
        whole = word
        for following in words[index + 1 :]:
            if NAMED.match(following.partition("=")[0]) and "=" in following:
                break  # a word of its own
            if "=" not in whole and following[:1] != "=":
                break
            together = whole[-1:] in "=,[({" or following[:1] in "=,])}"
            whole = f"{whole}{following}" if together else f"{whole} {following}"
            if NAMED.match(whole.partition("=")[0]) and whole[-1] != "=" and _reads(whole):
                return whole
    return None


def _unknown_flag(flag: str, words: Sequence[str], choices: dict[str, list[str]]) -> str:
    key, equals, value = flag.lstrip("-").partition("=")
    following = list(words)[list(words).index(flag) + 1 :]
    if not equals and following and "=" not in following[0]:
        value = following[0]
    key = key if key in choices or "_" in key else key.replace("-", "_")
    remedy = f"{_quoted(f'{key}={value}')}; " if value else ""
    return (
        f"there is no flag {flag.partition('=')[0]}; keys and groups are written without dashes.\n"
        f"  try: {remedy}--help lists them"
    )


def _unreadable(word: str, choices: dict[str, list[str]]) -> str:
    """What to type in place of a word that is no ``key=value`` in Hydra's grammar."""
    said = f"cannot read '{word}'"
    key, equals, value = word.partition("=")
    if not equals or not NAMED.match(key):
        found = (g for g, names in choices.items() if word.removeprefix(f"{g}/") in names)
        group = next(found, None)
        remedy = f"{group}={word.removeprefix(f'{group}/')}" if group else HOW
        if not equals and (parts := re.fullmatch(r"([\w./]+):\s*(\S+)", word)):
            remedy = f"{parts[1]}={parts[2]}"
        return f"{said}: it should look like key=value.\n  try: {remedy}"
    if re.match(r"[a-z_]+\(", value):
        return (
            f"{said}: there is no such function, or it is not written so.\n"
            f"  try: the values, {key}=1,2,3, or one range, {key}=range(1,4)"
        )
    if (bare := value.strip("=,; ")) != value and _reads(f"{key}={bare}"):
        return f"{said}: there is something around the value.\n  try: {_quoted(f'{key}={bare}')}"
    if key in choices:
        return f"there is no {word}. {suggestion(value, choices[key])}"
    if value[:1] in ("(", "{") and "," in value and _reads(as_list := f"{key}=[{value[1:-1]}]"):
        return f"{said}: a list has square brackets.\n  try: {_quoted(as_list)}"
    if value[:1] in ("[", "(", "{"):
        return (
            f"{said}: brackets are for lists, [a,b], and sections, {{a: 1}}; they must be closed.\n"
            f"  try: {_as_text(key, value)} if it is a text"
        )
    if value == "~" or value.startswith("~/"):
        home = str(Path(value).expanduser())
        return f"{said}: only the shell knows the folder ~.\n  try: {_quoted(f'{key}={home}')}"
    return (
        f"{said}: a value with blanks, quotes or signs such as = ~ : ü must stand in quotes of its "
        f"own, inside those of the shell.\n  try: {_as_text(key, value)}"
    )


def _as_text(key: str, value: str) -> str:
    """A word that Hydra reads as a text whatever is in it, as a shell takes it."""
    inner = value.replace('"', '\\"')
    return _quoted(f'{key}="{inner}"')


def _quoted(word: str) -> str:
    """``word`` for a shell: as it is where that may be."""
    return word if re.fullmatch(r"[\w./=,+:@-]+", word, re.ASCII) else shlex.quote(word)


def _reads(word: str) -> bool:
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True


def _files(words: Sequence[str]) -> list[Path]:
    folders = [*own_folders(words), CONFIGS]
    return [file for folder in folders for file in sorted(folder.rglob("*.yaml"))]


def _is_utf8(file: Path) -> bool:
    try:
        file.read_text("utf-8")
    except UnicodeDecodeError:
        return False
    return True
