"""Two tiny runs, one with padding and one without, hold to what they were when they were kept."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from chela.config.schema import parse
from chela.training.folder import RunFolder
from chela.training.run import run
from tests.conftest import ROOT, TINY

KEPT = Path(__file__).with_name("golden.json")
SMALL = ["task.num_train=64", "task.num_val=20", "task.num_test=20"]
RUNS = {
    "padded": TINY,  # short trees of ListOps
    "unpadded": [*(each for each in TINY if "task" not in each), "task=gratings", *SMALL],
}
FORM = ["trainer.max_steps=20", "trainer.log_every_steps=1", "trainer.validate_every_steps=10"]
COMPUTED_BY = f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"


def outcome(name: str, folder: Path) -> dict:
    """The logged numbers of one of ``RUNS``, and a hash of its last weights."""
    torch.set_num_threads(1)
    places = [f"data_dir={folder / 'data'}", f"output_dir={folder / 'outputs'}"]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        config = compose("config", [*RUNS[name], *FORM, *places])
    run(config)
    saved = RunFolder(parse(config))
    rows = json.loads((saved.path / "record.json").read_text())["metrics"]
    state = torch.load(saved.last, weights_only=True)["state_dict"]
    found = hashlib.sha256()
    for name in sorted(name for name in state if name.startswith("model.")):
        found.update(name.encode() + state[name].numpy().tobytes())
    names = ("loss", "accuracy")
    return {
        "train": [[row[f"train/{name}"] for name in names] for row in rows],
        "val": [[row[f"val/{name}"] for name in names] for row in rows if "val/loss" in row],
        "gradient_norms": [row["gradient_norm"] for row in rows],
        "weights": found.hexdigest(),
    }


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_what_it_was(name: str, tmp_path: Path) -> None:
    kept = json.loads(KEPT.read_text())
    found = outcome(name, tmp_path)
    same = kept["computed_by"] == COMPUTED_BY
    for part in ("train", "gradient_norms"):  # to the last bit where the same code adds them up
        assert torch.allclose(
            torch.tensor(found[part], dtype=torch.float64),
            torch.tensor(kept[name][part], dtype=torch.float64),
            rtol=0 if same else 1e-5,
            atol=0 if same else 1e-5,
        ), part
    # sums of the evaluation were float32 then
    torch.testing.assert_close(
        torch.tensor(found["val"]), torch.tensor(kept[name]["val"]), rtol=1e-5, atol=1e-5
    )
    if same:
        assert found["weights"] == kept[name]["weights"]
