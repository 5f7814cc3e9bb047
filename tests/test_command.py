"""The command as it is kept: what a user would type again, without secrets."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from chela.config.command import command_line, masked, masked_for_others, program, typed


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["train.py", "task=text", "seed=1"], "train.py task=text seed=1"),
        ([str(Path.cwd() / "train.py"), "seed=0", "hydra.job.num=3"], "train.py seed=0"),
        (["/elsewhere/train.py", "name=two words"], "/elsewhere/train.py 'name=two words'"),
        (["/venv/bin/chela", "train", "seed=1", "hydra.job.num=0"], "chela train seed=1"),
        (["/site/chela/__main__.py", "train", "seed=1"], "chela train seed=1"),
    ],
)
def test_the_command_of_a_record_is_what_a_user_types(argv, command) -> None:
    assert command_line(argv) == command
    assert typed(command).removeprefix("python ") == command
    assert typed(command).startswith("python ") is ("train.py" in command)


@pytest.mark.parametrize(
    ("argv", "again"),
    [
        (["train.py", "seed=0,1"], [str(Path("train.py").absolute())]),
        (["/venv/bin/chela", "train", "seed=0,1"], ["/venv/bin/chela", "train"]),
        (["/site/chela/__main__.py", "train", "-m"], ["-m", "chela", "train"]),
    ],
)
def test_another_process_runs_the_same_command(argv, again) -> None:
    assert program(argv) == again


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("+hydra.job.env_set.WANDB_API_KEY=ab,c=d", "+hydra.job.env_set.WANDB_API_KEY=***"),
        ("+hydra.job.env_set.hf_token=x", "+hydra.job.env_set.hf_token=***"),
        ("hydra.job.env_set={MY_SECRET:x,A:y}", "hydra.job.env_set={MY_SECRET:***,A:y}"),
        (
            "+hydra.job={env_set:{DB_PASSWORD: 'a,b', C: z}}",
            "+hydra.job={env_set:{DB_PASSWORD: ***, C: z}}",
        ),
        ("+hydra.job.env_set.DB_PASSWD=x", "+hydra.job.env_set.DB_PASSWD=***"),
        (
            "+hydra.job.env_set.PROXY=http://me:p@q@host:80",
            "+hydra.job.env_set.PROXY=http://me:***@host:80",
        ),
        ("task.tsv_dir=s3://host:80/a@b", "task.tsv_dir=s3://host:80/a@b"),
        ("model.mixer.qk_dim=8", "model.mixer.qk_dim=8"),
        ("data_dir=/tmp/tokens=1", "data_dir=/tmp/tokens=1"),
        ("-m", "-m"),
    ],
)
def test_secrets_are_masked(given: str, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert masked([given]) == [kept]
    monkeypatch.setattr(sys, "argv", ["train.py", given])
    with masked_for_others():
        assert sys.argv == ["train.py", kept]
    assert sys.argv == ["train.py", given]
