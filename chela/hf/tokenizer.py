"""A task's tokens as transformers sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizer

from chela.hub import pretrained_task
from chela.pretrained import LEXICON
from chela.records.files import write_text
from tasks.base import Task


class ChelaTokenizer(PreTrainedTokenizer):
    """The tokens of a text as the task has them; a token is called by its number, <|65|>.

    What ends a text stands for padding, too; where a task has no such token, number 0 does, since
    lm_eval begins with one. ``skip_special_tokens`` leaves it out if it is no text: a NUL byte.

    Args:
        task: of the run.
        others: of transformers.
    """

    model_input_names = ("input_ids", "attention_mask")

    def __init__(self, task: Task, **others: Any) -> None:
        self.task = task
        end = _called(task.end or 0)
        super().__init__(eos_token=end, pad_token=end, **others)

    @classmethod
    def from_pretrained(
        cls, place: str, *_: Any, revision: str | None = None, **others: Any
    ) -> ChelaTokenizer:
        """Of what ``run.save_pretrained`` wrote.

        Raises:
            RunError: see ``chela.from_pretrained``.
        """
        task, spec = pretrained_task(place, revision)
        return cls(task, model_max_length=spec.max_length)

    @property
    def vocab_size(self) -> int:
        """How many tokens the model knows."""
        return int(self.task.spec.vocab_size or 0)

    def get_vocab(self) -> dict[str, int]:
        """Each token by its name."""
        return {_called(each): each for each in range(self.vocab_size)}

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The names of tokens; see the class for what is left out."""
        silent = skip_special_tokens and self.convert_tokens_to_string([self.eos_token]) == "\0"
        return super().convert_ids_to_tokens(ids, skip_special_tokens=silent)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text that they stand for."""
        return self.task.text_of([_number(each) for each in tokens])

    def save_vocabulary(self, folder: str, *_: Any, **__: Any) -> tuple[str, ...]:
        """What the task's tokens stand for, if that is not known by the task in config.json."""
        if (lexicon := self.task.lexicon()) is None:
            return ()
        write_text(Path(folder) / LEXICON, lexicon)
        return (str(Path(folder) / LEXICON),)

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return [_called(int(each)) for each in self.task.tokens_of(text)]

    def _convert_token_to_id(self, token: str) -> int:
        return _number(token)

    def _convert_id_to_token(self, index: int) -> str:
        return _called(index)


def _called(token: int) -> str:
    return f"<|{token}|>"


def _number(name: str) -> int:
    return int(name[2:-2])
