"""A model as a folder that others read: config.json, model.safetensors, and a card.

Of a task whose tokens only its prepared data know, what they stand for is in lexicon.txt.

The folder is what the Hugging Face Hub expects. Nothing in it is code: the configuration and the
weights are values, and whoever reads them builds the model of this project's own classes. The
record goes along without what is nobody else's business: paths, hosts, names at W&B, its command.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import EvalResult, ModelCardData, snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from chela.errors import RunError
from chela.records.files import atomic_file, write_text
from chela.records.record import at, check, read_json, text
from chela.training.selected import PREFIX, largest
from tasks.base import TaskSpec
from tasks.errors import first_line

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
LEXICON, OF_LEXICON = "lexicon.txt", "lexicon_sha256"  # a file, and its checksum in CONFIG
KIND = "chela"  # the model_type of transformers, and the section of CONFIG that holds the record
ID = re.compile(r"[\w.-]+(/[\w.-]+)?")  # of a model on the hub: owner/name
LONGEST = 2**27  # bytes of LEXICON; the 267,735 words of WikiText-103 have two million
KEPT = (  # of a record
    *("record_version", "status", "run_id", "config", "identity", "departures", "code"),
    *("versions", "precision", "data", "protocol", "parameters", "best", "test"),
)
PRIVATE: dict[str, Any] = {
    "data_dir": "data",
    "output_dir": "outputs",
    "resume": "auto",
    "start_from": None,
}


def shared(record: Mapping[str, Any]) -> dict[str, Any]:
    """What others get of a record."""
    kept = {key: record[key] for key in KEPT if key in record}
    for part in {"identity", "departures"} & {*kept}:  # whose keys are whole, task.path
        kept[part] = {key: _bare(key, value) for key, value in kept[part].items()}
    config = {**record["config"], **{k: v for k, v in PRIVATE.items() if k in record["config"]}}
    config["task"] = {key: _bare(f"task.{key}", value) for key, value in config["task"].items()}
    config["logger"] = {**config["logger"], "project": None, "entity": None, "tags": []}
    machine = {key: at(record, ("hardware", key)) for key in ("device", "cpu", "gpu")}
    commit = {"commit": text(record, "git.commit"), "dirty": at(record, "git.dirty")}
    return {**kept, "config": config, "hardware": machine, "git": commit}


def _bare(key: str, value: Any) -> Any:
    """A value of the configuration; of what may be a place of data, the last name alone."""
    if not isinstance(value, str) or not key.startswith("task.") or key == "task.prompt":
        return value
    return Path(value).name or value  # the folder that one is in has none


def write_model(
    folder: Path,
    record: Mapping[str, Any],
    spec: TaskSpec,
    model: nn.Module,
    lexicon: str | None = None,
) -> None:
    """Write the files, each whole or not at all, the weights first.

    Args:
        folder: made if it is not there.
        record: of the run.
        spec: what the model has been built for.
        model: with the weights that were tested.
        lexicon: see ``Task.lexicon``.
    """
    weights = {  # copies: no two of a file may share their memory
        PREFIX + name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in model.state_dict().items()
    }
    content = save(weights, metadata={"format": "pt"})
    with atomic_file(folder / WEIGHTS) as file:
        file.write(content)
    words = {} if lexicon is None else {OF_LEXICON: hashlib.sha256(lexicon.encode()).hexdigest()}
    if lexicon is not None:
        write_text(folder / LEXICON, lexicon)
    known = shared(record)
    config = {
        "model_type": KIND,
        **({"architectures": ["ChelaForCausalLM"]} if spec.objective != "classification" else {}),
        "vocab_size": spec.vocab_size,
        "max_position_embeddings": spec.max_length,
        "hidden_size": at(record, "config.model.dim"),
        "num_hidden_layers": at(record, "config.model.depth"),
        "dtype": "float32",
        "sha256": hashlib.sha256(content).hexdigest(),
        **words,
        KIND: known,
    }
    write_text(folder / CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / CARD, card(known))


def card(record: Mapping[str, Any]) -> str:
    """The model card: the tested numbers, with n, standard error, data, protocol and versions."""
    task, model = at(record, "data.task"), at(record, "config.model.name")
    metrics = at(record, "test.metrics") or {}
    results = [
        EvalResult(
            task_type="text-generation" if name != "accuracy" else "other",
            dataset_type=str(at(record, "data.source")),
            dataset_name=f"{task} ({at(record, 'data.source')})",
            metric_type=name,
            metric_value=found.get("value"),
        )
        for name, found in metrics.items()
        if found.get("value") is not None
    ]
    tags = ["chela", str(task), str(model)]
    head = ModelCardData(
        library_name=KIND, tags=tags, model_name=str(at(record, "run_id")), eval_results=results
    )
    n, selecting = at(record, "test.n"), text(record, "protocol.metric.name")
    rows = [
        f"| {name} | {found.get('value')} | {found.get('standard_error')} | {found.get('unit')} |"
        for name, found in metrics.items()
    ]
    machine = text(record, "hardware.gpu") or text(record, "hardware.cpu")
    versions = ", ".join(f"{k} {v}" for k, v in (record.get("versions") or {}).items() if v)
    seen = at(record, "protocol.evaluation")
    lines = [
        "---",
        head.to_yaml(),
        "---",
        "",
        f"# {model} on {task}",
        "",
        f"{(at(record, 'parameters.total') or 0):,} parameters, seed {at(record, 'config.seed')}; "
        f"selected by {selecting}: {text(record, 'protocol.selection')}; tested "
        f"{text(record, 'protocol.test') or 'once'}.",
        "",
        f"| tested on {n:,} targets | value | standard error | unit |",
        "|---|---|---|---|",
        *rows,
        "",
        f"Data: {at(record, 'data.source')}"
        f"{', a stand-in for the official ones' if at(record, 'data.stand_in') else ''}, "
        f"fingerprint `{str(at(record, 'data.fingerprint'))[:12]}`.",
        *([f"Evaluation: {', '.join(f'{k} {v:,}' for k, v in seen.items())}."] if seen else []),
        f"Machine: {machine}, {record.get('precision')}; {versions}; "
        f"code {text(record, 'git.commit') or 'of an installed package'}.",
        "",
        "```python",
        "import chela",
        "",
        'run = chela.from_pretrained("<this folder or repository>")',
        "run.model, run.task, run.record",
        "```",
        "",
    ]
    return "\n".join(lines)


def find(place: str | Path, revision: str | None = None) -> Path:
    """The folder of a model: a local one, or what the hub has under this id.

    Raises:
        RunError: it is neither, or the hub does not answer.
    """
    folder = Path(place)
    if folder.is_dir():
        return folder
    if not ID.fullmatch(str(place)) or folder.is_absolute():
        raise RunError(
            f"{place} is no folder.\n  try: one that save_pretrained wrote, or owner/name"
        )
    try:
        found = snapshot_download(
            str(place), revision=revision, allow_patterns=[CONFIG, WEIGHTS, CARD, LEXICON]
        )
    except Exception as error:  # of the network, of the hub, of what it says of the id
        raise RunError(
            f"{place} is no folder here, and cannot be fetched from the hub: {first_line(error)}\n"
            "  try: a folder, or a login (hf auth login) for what is private"
        ) from error
    return Path(found)


def read_config(folder: Path) -> tuple[dict[str, Any], str | None]:
    """The record in a folder, and the checksum of its weights if it is known.

    Raises:
        RunError: there is none, or it is not one of ours.
    """
    try:
        config = read_json(folder / CONFIG)
        if not isinstance(config, dict) or config.get("model_type") != KIND:
            raise ValueError(f"its model_type is not {KIND}")
        record = check(config.get(KIND))
        if record["status"] != "finished":
            raise ValueError("it is of a run that is not finished")
        digest = config.get("sha256")
        return record, digest if isinstance(digest, str) else None
    except FileNotFoundError as error:
        raise RunError(
            f"{folder} has no {CONFIG}.\n  try: what save_pretrained wrote; a run's own folder is "
            "for chela.load_run"
        ) from error
    except ValueError as error:
        raise RunError(f"{folder / CONFIG} cannot be read as a model of chela: {error}") from error


def read_lexicon(folder: Path) -> str | None:
    """What is to be given to ``Task.expect``; None: there is nothing.

    Raises:
        RunError: it is damaged, or another.
    """
    file = folder / LEXICON
    if not file.exists():
        return None
    try:
        content = _read(file, LONGEST, read_json(folder / CONFIG).get(OF_LEXICON))
        return content.decode()
    except (OSError, ValueError) as error:
        raise _unreadable(file, "what the tokens stand for", error) from error


def read_weights(folder: Path, digest: str | None, model: nn.Module) -> dict[str, Tensor]:
    """The weights in a folder, by their names in the model.

    Args:
        folder: with ``WEIGHTS``.
        digest: its SHA-256 if that is known.
        model: that they are for, on any device; it says how large they can be.

    Raises:
        RunError: they are not there, damaged, or of another size.
    """
    file = folder / WEIGHTS
    try:
        weights = load(_read(file, largest(model), digest))
    except (OSError, ValueError, SafetensorError) as error:
        raise _unreadable(file, "weights", error) from error
    return {name.removeprefix(PREFIX): value for name, value in weights.items()}


def _read(file: Path, limit: int, digest: object) -> bytes:
    """A file's content.

    Args:
        file: of a model.
        limit: bytes that it may have.
        digest: its SHA-256 if that is known.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file, too large, or another one.
    """
    found = file.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is not a regular file")
    if found.st_size > limit:
        raise ValueError(f"it has {found.st_size:,} bytes, and can have {limit:,} at most")
    content = file.read_bytes()
    if digest is not None and hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"its checksum is not the one in {CONFIG}: it is damaged, or another")
    return content


def _unreadable(file: Path, what: str, error: Exception) -> RunError:
    return RunError(f"{file} cannot be read as {what}: {error}.\n  try: save or fetch it anew")
