"""What the page tells of one run."""

from __future__ import annotations

import pytest

from chela.report.details import configuration, facts
from tests.records.samples import record, run


def test_a_finished_run_in_full() -> None:
    told = dict(facts(run(accuracy=0.75, seed=1)))
    assert told["test"] == "accuracy 0.7500 ± 0.0097 (standard error), n = 2,000; loss 1.0000"
    assert told["selected"] == "step 800, validation accuracy 0.7500"
    assert told["training"] == "900 steps of 1,000 planned, 1.5M tokens/s, 1 h 02 min"
    assert told["peak memory"] == "2 GB (GPU allocations)"
    assert told["data"] == (
        "listops (official): 96,000 train, 2,000 val, 2,000 test; test sequences up to 1,998 long"
    )
    assert told["versions"] == "python 3.11.7, torch 2.13.0"  # cuda is null
    assert told["code"] == "c0ffee" * 6 + "abcd"
    assert "error" not in told


def test_the_weights_it_began_with_are_told() -> None:
    began = {"run_id": "easy-1234abcd-seed0", "step": 900, "data_fingerprint": "f" * 64}
    told = dict(facts(run(initial_weights=began)))
    assert told["began with"] == "easy-1234abcd-seed0, step 900, trained on data ffffffffffff"
    assert "began with" not in dict(facts(run()))


def test_a_failed_run_says_why_and_has_no_test() -> None:
    told = dict(facts(run(status="failed", accuracy=None)))
    assert told["error"] == "NonFinite: the loss is nan"
    assert "test" not in told


def test_changes_outside_the_commit_are_told() -> None:
    told = dict(facts(run(git={"commit": "abc", "dirty": True})))
    assert told["code"] == "abc, with changes that are not in it"
    assert "code" not in dict(facts(run(git={"commit": None, "dirty": None})))


def test_a_stand_in_is_called_one() -> None:
    assert (
        "image (cifar10-jpeg, a stand-in)"
        in dict(facts(run(task="image", stand_in="cifar10-jpeg")))["data"]
    )


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"baselines": {"same words": {"accuracy": 0.61}, "odd": {}}}, "same words 0.6100"),
        ({"baselines": "none"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_trivial_scores_where_there_are_some(found, told) -> None:
    data = record()["data"] | {"facts": found}
    assert dict(facts(run(data=data))).get("trivial scores") == told


def test_every_key_of_the_configuration_is_told() -> None:
    told = configuration(run(choices={"betas": [0.9, 0.98], "norm": None}))
    assert ("model.betas", "[0.9, 0.98]") in told
    assert ("model.norm", "None") in told
    assert ("logger.wandb", "auto") in told
