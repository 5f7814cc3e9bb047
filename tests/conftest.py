"""What the tests share: a run small enough for seconds, and no network."""

from __future__ import annotations

import gc
import os

os.environ["HF_HUB_OFFLINE"] = "1"  # else each test that touches `datasets` waits for retries
os.environ["WANDB_MODE"] = "offline"

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, settings

if not torch.cuda.is_available():
    # Kernels then run interpreted; Triton reads this when it is imported, which hydra's and
    # lightning's imports may bring about.
    os.environ["TRITON_INTERPRET"] = "1"
    from tests.interpreter import hasten

    hasten()

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from chela.commands import start

# A command in the background ignores Ctrl-C, and hands that down: tests that send it would wait.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent

# ListOps with short trees and a model of a few thousand parameters.
TINY = [
    "task=listops",
    "task.min_length=5",
    "task.max_length=40",
    "task.max_depth=4",
    "task.num_train=200",
    "task.num_val=50",
    "task.num_test=50",
    "task.workers=1",
    "model=chela",
    "model.dim=16",
    "model.depth=1",
    "model.norm=layer",  # BatchNorm's statistics are of a device's or a micro batch's share
    "model.dropout=0.1",
    "model.mixer.qk_dim=8",
    "model.mixer.num_heads=2",
    "schedule.warmup_steps=2",
    "trainer.augment=false",  # devices that hold a sequence together cannot
    "trainer.batch_size=16",
    "trainer.max_steps=12",
    "trainer.validate_every_steps=5",
    "trainer.log_every_steps=4",
    "trainer.accelerator=cpu",
    "trainer.progress=false",
    "logger=csv",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fuzz", type=int, metavar="N", help="random inputs for each fuzz test (CI: 25, the same)"
    )


def pytest_configure(config: pytest.Config) -> None:
    """No example of any test has a time limit, which other processes' load would break.

    ``@settings.get_profile("fuzz")`` above ``@given`` are the settings of fuzz tests.
    """
    settings.register_profile("untimed", settings.default, deadline=None)
    settings.load_profile("untimed")
    given = config.getoption("fuzz")
    settings.register_profile(
        "fuzz",
        max_examples=given or 25,
        derandomize=given is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def pytest_collection_finish() -> None:
    """A million objects of libraries, which every run would look through for garbage, stay."""
    gc.collect()
    gc.freeze()


def composed_of(*overrides: str) -> DictConfig:
    """What train.py is given for these words."""
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose("config", list(overrides))


def program(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """``python ARGUMENTS`` in the root of the repository, to its end."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., SimpleNamespace]:
    """``command("report", "outputs")`` is that command in this process: its status, what it says.

    A process of its own would begin by importing for some seconds.
    """

    def call(name: str, *words: object) -> SimpleNamespace:
        arguments, status = [*map(str, words)], 0
        monkeypatch.setattr(sys, "argv", ["chela", name, *arguments])
        capsys.readouterr()
        try:
            start(name, arguments)
        except SystemExit as ended:
            status = int(str(ended.code or 0))
        said = capsys.readouterr()
        return SimpleNamespace(returncode=status, stdout=said.out, stderr=said.err)

    return call


@pytest.fixture(autouse=True)
def _no_pictures(
    request: pytest.FixtureRequest,
    _process: None,  # first, so that it ends behind monkeypatch, whose values may be a command's
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Runs draw their curves where a test looks at them; matplotlib takes as long as the rest."""
    looked_at = request.path.name in ("test_run.py", "test_disk.py")
    if not looked_at and "chela.training.run" in sys.modules:
        monkeypatch.setattr("chela.training.run.draw_curve", lambda *_: None)


@pytest.fixture(autouse=True)
def _process() -> Iterator[None]:
    """What a command sets for its own process, and for those that it starts, ends with the test."""
    before, composed = dict(os.environ), HydraConfig.instance().cfg
    yield
    os.environ.clear()
    os.environ.update(before)
    HydraConfig.instance().cfg = composed


@pytest.fixture(scope="session")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that is prepared once for all tests of a worker."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def composed(tmp_path: Path, shared_data: Path) -> Callable[..., DictConfig]:
    """``composed("model.depth=2")``: the tiny configuration with overrides, as train.py has it."""
    torch.set_num_threads(1)  # the tests run side by side

    def build(*overrides: str) -> DictConfig:
        places = [f"data_dir={shared_data}", f"output_dir={tmp_path / 'outputs'}"]
        return composed_of(*TINY, *places, *overrides)

    return build
