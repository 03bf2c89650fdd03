"""What figures depend on, and how much memory can be had: by the kernel and by the limits of the cgroups."""

from __future__ import annotations

import os

import pytest
from bench import machine

GIB = 1 << 30


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Return a function that writes files of /proc and of the cgroups."""
    monkeypatch.setattr(machine, "PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroup")

    def write(**files):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    write(proc__meminfo=f"MemTotal: {64 << 20} kB\nMemAvailable: {20 << 20} kB\n")
    return write


def test_without_a_limit_what_the_kernel_calls_available_is_free(kernel):
    kernel(proc__self__cgroup="0::/job\n", cgroup__job__memory_dot_max="max\n")
    assert machine.memory_limit() is None
    assert machine.free_gib() == 20


def test_the_limit_of_a_cgroup_above_counts_less_what_is_used_beside_files(kernel):
    kernel(
        proc__self__cgroup="0::/pod/job\n",
        cgroup__pod__memory_dot_max=f"{8 * GIB}\n",
        cgroup__pod__memory_dot_current=f"{5 * GIB}\n",
        cgroup__pod__memory_dot_stat=f"anon 7\nactive_file {GIB // 2}\ninactive_file {3 * GIB // 2}\n",
        cgroup__pod__job__memory_dot_max="max\n",
    )
    assert machine.memory_limit() == 8 * GIB
    assert machine.free_gib() == 5


def test_a_cgroup_of_the_first_version_counts_too(kernel):
    kernel(
        proc__self__cgroup="9:name=systemd:/\n4:memory:/job\n0::/\n",
        cgroup__memory__job__memory_dot_limit_in_bytes=f"{4 * GIB}\n",
        cgroup__memory__job__memory_dot_usage_in_bytes=f"{3 * GIB}\n",
        cgroup__memory__job__memory_dot_stat=f"total_active_file 0\ntotal_inactive_file {GIB}\n",
        cgroup__memory__memory_dot_limit_in_bytes="9223372036854771712\n",
    )
    assert machine.memory_limit() == 4 * GIB
    assert machine.free_gib() == 2


def test_the_facts_of_this_machine_are_all_there():
    facts = machine.machine()
    assert facts["cores"] == len(os.sched_getaffinity(0))
    assert facts["torch"] == machine.version_of("torch") is not None
    assert facts["memory_gib"] >= machine.free_gib() > 0
    assert facts["priorities_can_be_raised"] in (True, False)
    assert machine.version_of("no-such-package-of-anybody") is None


def test_priorities_can_be_raised_where_a_process_may(monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/true")
    assert machine.priorities_can_be_raised() is True
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert machine.priorities_can_be_raised() is False
    monkeypatch.setattr("sys.executable", "/no/such/program")
    assert machine.priorities_can_be_raised() is False
