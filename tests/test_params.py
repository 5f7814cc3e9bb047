"""The table of parameters and FLOPs, against counts made by hand."""

from __future__ import annotations

import math
import re

import pytest
import torch

from chela.bench import params
from chela.bench.params import LRA, Size, model_names, run_config, size_of, spec_of, table
from chela.training.build import build_model, build_task
from tasks.base import TaskSpec
from tasks.errors import DataError
from tasks.pictures import mirrored
from tests.arena import arena_models
from tests.conftest import ROOT

pytestmark = pytest.mark.long

SPEC = TaskSpec("listops", 10, 256, 18, 1)
SMALL = ["task=listops", "~experiment/lra", "model.dim=32", "model.depth=2", "trainer.batch_size=3"]


def test_a_transformers_size_is_what_its_matrices_say() -> None:
    size = size_of(run_config("transformer", SMALL), SPEC)
    d, depth, length = 32, 2, 256
    block = (4 * d * d + 4 * d) + (4 * d * d + 3 * d) + 4 * d  # attention, MLP, two layer norms
    head = (d * 2 * d + 2 * d) + (2 * d * 10 + 10)
    assert size.parameters == 18 * d + depth * block + 2 * d + head
    products = 2 * (8 * d * d) + 2 * 2 * length * d  # matrices, then scores and their mean
    pooled = 2 * (d * 2 * d + 2 * d * 10) / length
    assert size.flops_per_token == pytest.approx(depth * products + pooled)


def test_a_long_convolution_counts_its_transforms() -> None:
    """S4D's kernel is built once per batch: W x W taps from 2 N numbers, W = ceil(sqrt(L))."""
    arguments = [*SMALL, "model.mixer.state_dim=8"]
    size = size_of(run_config("s4d", arguments), SPEC)
    d, length, batch, n, width = 32, 256, 3, 512, 16
    transform = 2.5 * n * math.log2(n)
    conv = 2 * transform * d / length + transform * d / (batch * length)  # x, y; the kernel
    kernel = 2 * d * (2 * width * width * 8) / (batch * length)  # both directions
    pooled = 2 * (d * 2 * d + 2 * d * 10) / length
    expected = 2 * (conv + kernel + 2 * d * 2 * d) + pooled
    assert size.flops_per_token == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("task", LRA)
def test_matched_recipes_are_within_ten_percent(task: str) -> None:
    spec, _ = spec_of(build_task(run_config("chela", [f"task={task}"])))
    parameters = {}
    with torch.device("meta"):
        for name in ("chela", "transformer", "linear_transformer"):
            model = build_model(run_config(name, [f"task={task}"]).model, spec)
            parameters[name] = sum(each.numel() for each in model.parameters())
    for name, count in parameters.items():
        assert 0.9 <= count / parameters["chela"] <= 1.1, name


def test_without_data_a_usual_vocabulary_is_assumed(tmp_path) -> None:
    for arguments, expected in (
        (["task=text"], TaskSpec("text", 2, 4096, 134, 1)),
        (["task=retrieval"], TaskSpec("retrieval", 2, 4000, 98, 1, 2)),
        (["task=retrieval", "task.data=rfc"], TaskSpec("retrieval-rfc", 2, 4000, 110, 1, 2)),
    ):
        config = run_config("chela", [*arguments, f"data_dir={tmp_path}"])
        assert spec_of(build_task(config)) == (expected, True)
    config = run_config("chela", ["task=image", f"data_dir={tmp_path}"])
    assert spec_of(build_task(config)) == (
        TaskSpec("image", 10, 1024, None, 1, augment=mirrored),
        False,
    )


def test_the_table_says_who_breaks_the_rule() -> None:
    sizes = [Size("chela", 1000, 1e6), Size("fits", 1100, 2e6), Size("large", 1101, 3e6)]
    _, reference, fits, large = table(sizes).splitlines()
    assert reference.split() == ["chela", "1,000", "1.00", "1.00"]
    assert fits.split() == ["fits", "1,100", "1.10", "2.00"]
    assert large.startswith("large") and "breaks LRA's rule" in large


def test_the_command_prints_every_model(tmp_path, capsys) -> None:
    params.main(["task=listops", "task.max_tokens=128", "model.depth=1", f"data_dir={tmp_path}"])
    first, _, *rows = capsys.readouterr().out.strip().splitlines()
    assert first == "listops: up to 128 tokens"
    assert [row.split()[0] for row in rows] == model_names()
    assert model_names()[0] == "chela"


def test_the_documented_table_is_what_the_script_counts() -> None:
    """docs/models.md, in thousands, for the task whose models are the quickest to count."""
    text = (ROOT / "docs" / "models.md").read_text()
    sizes = text.partition("## Sizes\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|(.+)\|$", sizes, flags=re.MULTILINE)
    documented = {name: cells.split("|") for name, cells in rows}
    assert sorted(documented) == arena_models()
    spec, _ = spec_of(build_task(run_config("chela", ["task=image"])))
    counted = {name: size_of(run_config(name, ["task=image"]), spec) for name in documented}
    for name, size in counted.items():
        parameters, flops = documented[name][LRA.index("image")].split("/")
        count = parameters.strip().replace(",", "")
        assert round(size.parameters / 1000) == int(count.rstrip("*"))
        assert count.endswith("*") is (size.ratio(counted["chela"]) > params.ALLOWANCE)
        assert round(size.flops_per_token / 1e6, 2) == float(flops)


def test_a_vocabulary_that_only_data_tell_asks_for_them(tmp_path) -> None:
    words = ["task=wikitext2", "task.stand_in=mine", f"data_dir={tmp_path}"]
    with pytest.raises(DataError, match=r"is not prepared here(.|\n)*chela prepare task="):
        params.main(words)
