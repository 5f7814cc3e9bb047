"""What a step that is not finite does to a run, and what is kept of it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from chela.config.schema import parse
from chela.errors import RunError
from chela.training import muon
from chela.training.folder import RunFolder
from chela.training.module import TrainingModule
from chela.training.nonfinite import NonFinite
from chela.training.run import run
from tests.conftest import composed_of
from tests.training.replayed import replay_on_cpu, state_of
from tests.training.runs import folder_of, record_of

pytestmark = pytest.mark.training


def test_a_loss_that_is_not_finite_stops_the_run(composed, monkeypatch) -> None:
    original = TrainingModule._ask
    batches = []

    def poisoned(self, part):
        logits, targets = original(self, part)
        poison = torch.nan if self.training and self.global_step == 7 else 1.0
        return logits * poison, targets

    def spy(self, batch, *rest):
        batches.append(batch.index.tolist())

    monkeypatch.setattr(TrainingModule, "_ask", poisoned)
    monkeypatch.setattr(TrainingModule, "on_train_batch_start", spy)
    config = composed("trainer.checkpoint_every_steps=3")
    with pytest.raises(RunError) as caught:
        run(config)
    message = str(caught.value)
    assert "step 8" in message
    first = ", ".join(map(str, batches[-1][:3]))
    assert f"the batch: 16 rows of the training split ({first}, ...)" in message
    assert f"last good checkpoint: {RunFolder(parse(config)).last}, step 6" in message
    record = record_of(config)
    assert record["status"] == "failed"
    assert "nan" in record["error"]
    assert str(batches[-1][3:])[1:-1] not in record["error"]


def test_a_gradient_that_is_not_finite_changes_no_weight(composed, monkeypatch) -> None:
    seen = {}
    original = TrainingModule._loss

    def poisoned(self, *batch):
        seen["weights"] = {k: v.clone() for k, v in self.model.state_dict().items()}
        seen["module"] = self
        loss, sums = original(self, *batch)
        return (loss * torch.tensor(1e38) * 1e38 if self.global_step == 2 else loss), sums

    monkeypatch.setattr(TrainingModule, "_loss", poisoned)
    with pytest.raises(RunError, match="gradient"):
        run(composed())
    for name, value in seen["module"].model.state_dict().items():
        assert torch.equal(value, seen["weights"][name]), name


def test_the_rows_and_random_state_of_a_step_that_was_not_finite_are_kept(
    composed, monkeypatch
) -> None:
    original = TrainingModule._ask

    def poisoned(self, part):
        logits, targets = original(self, part)
        return logits * torch.nan, targets

    monkeypatch.setattr(TrainingModule, "_ask", poisoned)
    config = composed()
    with pytest.raises(RunError, match=r"nonfinite\.pt"):
        run(config)
    kept = torch.load(folder_of(config) / "nonfinite.pt", weights_only=True)
    assert (kept["step"], len(kept["rows"])) == (1, 16)
    assert kept["random_state"]["torch"].dtype == torch.uint8


def test_steps_that_are_not_finite_are_skipped_and_counted(composed, monkeypatch) -> None:
    """A poisoned loss and a poisoned gradient change nothing; the third one is too many."""
    original, weights = TrainingModule._ask, []
    bad = {3: torch.nan, 5: torch.inf}

    def poisoned(self, part):
        logits, targets = original(self, part)
        if self.training:
            weights.append([p.detach().clone() for p in self.model.parameters()])
            logits = logits * bad.get(self.global_step, 1.0)
        return logits, targets

    monkeypatch.setattr(TrainingModule, "_ask", poisoned)
    config = composed("trainer.max_skipped_steps=2")
    run(config)
    record = record_of(config)
    assert record["training"]["skipped_steps"] == 2
    assert record["status"] == "finished"
    for step in range(11):
        same = all(map(torch.equal, weights[step], weights[step + 1]))
        assert same == (step in bad), step
    assert all(row.get("train/loss", 0.0) is not None for row in record["metrics"])
    with pytest.raises(RunError, match="after 1 skipped"):
        run(composed("trainer.max_skipped_steps=1"))


def test_an_update_beyond_its_formula_is_a_step_that_is_not_finite(composed, monkeypatch) -> None:
    original, steps = muon.orthogonalize, []

    def broken(matrices: Tensor) -> Tensor:
        if not isinstance(matrices, FakeTensor):  # which the estimate of memory steps with
            steps.append(1)
        return original(matrices) * (1e9 if len(steps) == 4 else 1)

    monkeypatch.setattr(muon, "orthogonalize", broken)
    with pytest.raises(RunError, match=r"Muon's update is larger(.|\n)* step 4; (.|\n)*of MPS"):
        run(composed("optimizer=muon"))
    steps.clear()
    config = composed("optimizer=muon", "trainer.max_skipped_steps=1")
    run(config)
    assert record_of(config)["training"]["skipped_steps"] == 1


GRATINGS = [
    *("task=gratings", "task.num_train=64", "task.num_val=16", "task.num_test=16"),
    *("model.dim=16", "model.depth=2", "model.mixer.qk_dim=8", "trainer.accelerator=cpu"),
    *("trainer.max_steps=6", "trainer.log_every_steps=1", "trainer.validate_every_steps=3"),
    *("trainer.batch_size=16", "trainer.max_skipped_steps=1", "trainer.progress=false"),
    *("logger=csv", "model.dropout=0.1", "schedule.warmup_steps=2"),
]
BOOKS = {"steps", "skipped", "gradient_norm"}  # of the module itself
CHELA = ["model.norm=batch", "model.mixer.branch_norm=batch"]


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize(
    "more",
    [
        ["model=chela", *CHELA, "optimizer=muon", "trainer.gradient_clip=null"],
        ["model=chela", *CHELA, "model.prenorm=false"],
        ["model=s4d", "model.norm=batch"],
    ],
)
def test_a_batch_that_is_not_finite_leaves_all_that_the_next_step_reads(
    tmp_path, monkeypatch, more, graph
) -> None:
    if graph:
        replay_on_cpu(monkeypatch)
    original, changed = TrainingModule.whole_step, []

    def poisoned(self, batch):
        optimizer = self.trainer.optimizers[0]
        if self.global_step != 2:
            return original(self, batch)
        values = batch.values.clone()
        values[0, 0] = torch.inf
        before = state_of(self, optimizer)
        loss = original(self, batch._replace(values=values))
        after = state_of(self, optimizer)
        changed.extend(
            k for k in after if "random" not in k and not torch.equal(after[k], before[k])
        )
        return loss

    monkeypatch.setattr(TrainingModule, "whole_step", poisoned)
    sizes = [each for each in GRATINGS if "qk_dim" not in each or "model=chela" in more]
    config = composed_of(*sizes, *more, f"output_dir={tmp_path}", f"data_dir={tmp_path}/data")
    run(config)
    record = record_of(config)
    assert set(changed) == BOOKS
    assert record["training"]["skipped_steps"] == 1
    rows = record["metrics"]
    assert all(math.isfinite(row["gradient_norm"]) for row in rows if row["step"] != 3)
    assert all(math.isfinite(row["val/loss"]) for row in rows if "val/loss" in row)


def test_what_was_broken_before_is_told_and_kept(composed, monkeypatch) -> None:
    """Else one looks for the fault in a batch that has none."""
    original, weights = TrainingModule.whole_step, []

    def breaking(self, batch):
        if self.global_step == 2:
            weights.extend(name for name, _ in self.model.named_parameters())
            with torch.no_grad():
                self.model.get_parameter(weights[-1])[0] = torch.nan
        return original(self, batch)

    monkeypatch.setattr(TrainingModule, "whole_step", breaking)
    config = composed()
    with pytest.raises(RunError, match=r"not finite since an earlier step: ") as error:
        run(config)
    assert "all rows, the weights and" in str(error.value)
    kept = torch.load(folder_of(config) / "nonfinite.pt", weights_only=True)
    assert kept["broken"] == weights[-1:]
    assert kept["model"][weights[-1]].isnan().sum() == 1


def test_a_mask_of_infinities_is_not_called_broken() -> None:
    model = torch.nn.Linear(2, 1)
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]), persistent=False)
    bad = {"step": 3, "loss": math.nan, "norm": math.nan}
    tensors = {name: torch.tensor(x) for name, x in bad.items()} | {"rows": torch.arange(2)}
    error = NonFinite.of(tensors, 1, model, torch.optim.SGD(model.parameters()))
    assert "all weights, running averages and states of the optimizer are finite" in str(error)
