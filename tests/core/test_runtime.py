"""The device's description on every platform: cores and peak memory where the system tells them."""

import os
import resource
import sys
from types import SimpleNamespace

import pytest
import torch

from flipside.core import runtime
from flipside.core.runtime import Runtime, RuntimeParams, available_cores

CPU = RuntimeParams(device="cpu", threads=1)


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 5}, raising=False)
    assert available_cores() == 3


def test_cores_without_affinity_are_the_machines(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores() == 1
    before = torch.get_num_threads()
    try:
        assert "CPU, 1 threads" in Runtime(RuntimeParams(device="cpu")).describe()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("platform", "counted"), [("linux", 2_000_000), ("darwin", 2_048_000_000)])
def test_peak_memory_is_counted_in_kib_on_linux_and_in_bytes_on_macos(monkeypatch, platform, counted):
    usage = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: SimpleNamespace(ru_maxrss=counted))
    monkeypatch.setattr(runtime, "resource", usage)
    monkeypatch.setattr(sys, "platform", platform)
    assert Runtime(CPU).peak_memory_gb() == pytest.approx(2.048)
    assert Runtime(CPU).describe_peak_memory() == "peak memory 2.05 GB"


def test_peak_memory_is_said_to_be_unknown_where_it_is(monkeypatch):
    monkeypatch.setattr(runtime, "resource", None)
    assert Runtime(CPU).peak_memory_gb() is None
    assert Runtime(CPU).describe_peak_memory() == "peak memory unknown on this platform"


@pytest.mark.parametrize("has_units", [True, False])
def test_a_cpu_computes_in_bfloat16_where_it_has_matrix_units_for_it(monkeypatch, has_units):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": has_units})
    expected = "bfloat16" if has_units else "float32"
    found = Runtime(CPU)
    assert found.describe() == f"CPU, 1 threads, {expected}"
    with found.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == getattr(torch, expected)
    assert "float32" in Runtime(CPU.model_copy(update={"precision": "float32"})).describe()


def test_a_c_library_that_has_no_thresholds_is_left_alone(monkeypatch):
    asked = []
    glibc = SimpleNamespace(mallopt=lambda option, value: asked.append((option, value)))
    monkeypatch.setattr(sys, "platform", "linux")
    for library, expected in ((SimpleNamespace(), []), (glibc, list(runtime.MALLOC_OPTIONS.items()))):
        monkeypatch.setattr(runtime.ctypes, "CDLL", lambda name, library=library: library)
        Runtime(CPU)
        assert asked == expected


@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}), reason="glibc alone has thresholds")
def test_glibc_keeps_large_blocks_for_the_next_tensor():
    def faults():
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    Runtime(CPU)
    torch.ones(12_000_000)  # 48 MB, more than what glibc keeps by itself
    before = faults()
    for _ in range(5):
        torch.ones(12_000_000)
    assert faults() - before < 12_000  # of 4 KiB; anew each time there would be 58,594
