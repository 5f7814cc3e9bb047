"""Beginning with the weights of an earlier run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from chela.config.schema import computation, parse
from chela.errors import ConfigError, RunError
from chela.training.checkpoints import Checkpointer
from chela.training.module import TrainingModule
from chela.training.run import run
from tests.training.runs import folder_of, record_of

pytestmark = pytest.mark.training


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    return {name: value for name, value in state.items() if name.startswith("model.")}


@pytest.fixture
def earlier(composed):
    """The folder of a finished run of ``composed()``."""
    config = composed()
    run(config)
    return folder_of(config)


def test_a_run_begins_with_the_selected_weights(composed, earlier, monkeypatch, capsys) -> None:
    seen = []
    original = TrainingModule.on_fit_start

    def spy(self):
        seen.append({name: value.clone() for name, value in self.state_dict().items()})
        return original(self)

    monkeypatch.setattr(TrainingModule, "on_fit_start", spy)
    config = composed(f"start_from={earlier.parent.name}", "optimizer.lr=2e-3")
    capsys.readouterr()
    run(config)
    expected = weights(earlier)
    assert {name for name in seen[0] if name.startswith("model.")} == expected.keys()
    assert [name for name in expected if not torch.equal(seen[0][name], expected[name])] == []
    first, record = record_of(composed()), record_of(config)
    assert first["initial_weights"] is None
    assert record["initial_weights"]["run_id"] == first["run_id"]
    assert record["initial_weights"]["step"] == first["best"]["step"]
    assert record["initial_weights"]["data_fingerprint"] == first["data"]["fingerprint"]
    assert len(record["initial_weights"]["sha256"]) == 64
    assert f"with the weights of {first['run_id']}, step" in capsys.readouterr().out


def test_it_is_another_run_and_the_key_at_null_changes_no_id(composed, earlier) -> None:
    plain, begun = composed(), composed(f"start_from={earlier.parent.name}")
    assert parse(plain).identity != parse(begun).identity
    assert "start_from" not in computation(parse(plain))
    assert computation(parse(begun))["start_from"] == earlier.parent.name


def test_a_resume_needs_the_earlier_run_no_more(composed, earlier, monkeypatch) -> None:
    config = composed(f"start_from={earlier.parent.name}", "optimizer.lr=2e-3")
    save = Checkpointer._save_last

    def stop(self, trainer):
        if trainer.global_step >= 5:
            self.stopping.received = 15
        save(self, trainer)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpointer, "_save_last", stop)
        with pytest.raises(SystemExit):
            run(config)
    stopped = record_of(config)
    earlier.parent.rename(earlier.parent.with_name("elsewhere"))
    run(config)
    record = record_of(config)
    assert (stopped["status"], record["status"]) == ("interrupted", "finished")
    assert record["initial_weights"] == stopped["initial_weights"] is not None


def test_what_cannot_be_begun_with_is_named(composed, earlier) -> None:
    name = earlier.parent.name
    with pytest.raises(RunError, match=rf"no run .*x{name}(.|\n)*{name}(.|\n)*run it first"):
        run(composed(f"start_from=x{name}"))
    with pytest.raises(RunError, match=r"another model(.|\n)*16(.|\n)*there(.|\n)*more"):
        run(composed(f"start_from={name}", "model.dim=24"))
    with pytest.raises(RunError, match=rf"no run .*{name}/seed1"):
        run(composed(f"start_from={name}", "seed=1"))
    record = record_of(composed())
    (earlier / "record.json").write_text(json.dumps({**record, "status": "interrupted"}))
    with pytest.raises(RunError, match=r"is interrupted(.|\n)*finish it first"):
        run(composed(f"start_from={name}"))
    (earlier / "record.json").write_text(json.dumps(record))
    file = earlier / "checkpoints" / "best.ckpt"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RunError, match=r"best\.ckpt cannot be read as a checkpoint"):
        run(composed(f"start_from={name}"))


def test_each_seed_goes_on_from_its_own(composed, earlier) -> None:
    run(composed("seed=1"))
    configs = [composed(f"start_from={earlier.parent.name}", f"seed={seed}") for seed in (0, 1)]
    for config in configs:
        run(config)
    records = [record_of(config) for config in configs]
    begun = [record["initial_weights"]["run_id"] for record in records]
    assert begun == [f"{earlier.parent.name}-seed{seed}" for seed in (0, 1)]
    assert folder_of(configs[0]).parent == folder_of(configs[1]).parent


def test_a_refusal_moves_nothing_aside(composed, earlier) -> None:
    config = composed(f"start_from={earlier.parent.name}", "optimizer.lr=2e-3")
    run(config)
    before = record_of(config)
    earlier.parent.rename(earlier.parent.with_name("elsewhere"))
    config.resume = False
    with pytest.raises(RunError, match="run it first"):
        run(config)
    assert record_of(config) == before


def test_weights_of_another_step_are_refused(composed, earlier) -> None:
    record = record_of(composed())
    step = record["best"]["step"]
    record["best"]["step"] = step + 1
    (earlier / "record.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match=rf"weights of step {step}, but (.|\n)*step {step + 1}"):
        run(composed(f"start_from={earlier.parent.name}"))
    (earlier / "record.json").write_text("{")
    with pytest.raises(RunError, match=r"record in (.|\n)*cannot be read(.|\n)*resume=false"):
        run(composed(f"start_from={earlier.parent.name}"))


@pytest.mark.parametrize("name", ["''", "easy", "/x/easy-1234abcd", "easy-1234abcd-seed0", "12345"])
def test_what_is_no_id_is_refused(composed, name: str) -> None:
    with pytest.raises(ConfigError, match=r"start_from=(.|\n)*without -seed"):
        parse(composed(f"start_from={name}"))
