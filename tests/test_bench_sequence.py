"""`chela bench-sequence`: what several devices do with a sequence, beside one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from chela.bench import sequence
from chela.bench.profiling import Profile
from chela.bench.throughput import Speed
from chela.config.schema import RunConfig
from chela.errors import ConfigError

ONE = Speed(1e6, 1e6, 4e6, 1.0, 8 * 2**30, 1.0, Profile((), {}), 0, 0, 0)
TWO = replace(ONE, step=1.6e6, peak_bytes=4 * 2**30, sent_bytes=3_000_000, least_bytes=2_000_000)


ROWS = {
    2: [
        "1,000 1 1.0 ms 1.00M 8.00 GiB",
        "2,000 1 does not fit into the memory",
        "1,000 2 0.6 ms 1.60M 1.60x 4.00 GiB 50% 3.00 MB 2.00 MB 1.50",
        "2,000 2 1.2 ms 1.60M 4.00 GiB 3.00 MB 2.00 MB 1.50",
    ],
    1: ["1,000 1 1.0 ms 1.00M 8.00 GiB", "2,000 1 does not fit into the memory"],
}


@pytest.mark.parametrize(("devices", "rows"), ROWS.items())
def test_devices_together_are_shown_beside_one(
    devices: int,
    rows: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def measure(config: RunConfig, length: int, tokens: int, steps: int) -> Speed:
        assert tokens == length  # one sequence
        if config.trainer.processes == 1:
            if length > 1000:
                raise torch.OutOfMemoryError
            return ONE
        assert config.trainer.sequence_devices == config.trainer.devices == 2
        return TWO

    monkeypatch.setattr(sequence, "measure_at_length", measure)
    words = ["trainer.accelerator=cpu", "trainer.batch_size=2"]
    sequence.main(["--lengths", "1000,2000", "--devices", str(devices), *words])
    _, _, *lines = capsys.readouterr().out.splitlines()
    assert [" ".join(line.split()) for line in lines] == rows


def test_a_model_that_cannot_be_split_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sequence, "measure_at_length", lambda *_: pytest.fail("it was measured"))
    words = ["model=mega", "trainer.accelerator=cpu", "trainer.batch_size=2"]
    with pytest.raises(ConfigError, match="model=mega cannot have each sequence on 2 devices"):
        sequence.main(["--lengths", "1000", *words])
