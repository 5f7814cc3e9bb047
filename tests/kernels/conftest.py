"""Tensors this small are slower on several threads, and the tests run side by side."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def room_for_others_on_the_gpu() -> Iterator[None]:
    """What PyTorch keeps of a large test's memory is missed by those in other processes."""
    yield
    torch.cuda.empty_cache()


@pytest.fixture
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """PyTorch fills what it allocates with NaN, and refuses nondeterministic operations."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what determinism asks of cuBLAS
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def uninitialised_memory_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=True)  # a reference may have no such form
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def kernels_can_run() -> None:
    from chela.kernels import launching

    able = torch.cuda.is_available() or launching.INTERPRETED
    assert able, "set TRITON_INTERPRET=1 before triton loads"
