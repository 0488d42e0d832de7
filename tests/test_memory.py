"""Available memory: what the kernel says, and no more than the container's limit leaves."""

import os
from pathlib import Path

import pytest

from asap_export.memory import available_memory, gigabytes

MIB = 1 << 20


@pytest.fixture
def machine(tmp_path):
    """A file system with 4096 MiB available, and further files as {path: content}."""

    def make(**files: str) -> Path:
        meminfo = f"MemTotal: {8192 * 1024} kB\nMemFree: 1 kB\nMemAvailable: {4096 * 1024} kB\n"
        for name, content in {"proc/meminfo": meminfo, **files}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
        return tmp_path

    return make


def test_without_a_container_it_is_the_kernels_estimate(machine):
    assert available_memory(machine()) == 4096 * MIB


def test_a_container_of_version_2_limits_it_and_its_page_cache_counts_as_free(machine):
    group = "sys/fs/cgroup/app/"
    root = machine(
        **{
            "proc/self/cgroup": "0::/app/worker\n",
            f"{group}worker/memory.max": "max\n",
            f"{group}memory.max": f"{1000 * MIB}\n",
            f"{group}memory.current": f"{700 * MIB}\n",
            f"{group}memory.stat": f"anon 5\nactive_file {100 * MIB}\ninactive_file {50 * MIB}\n",
        }
    )
    assert available_memory(root) == 450 * MIB


def test_a_container_of_version_1_limits_it_seen_from_inside_where_its_own_path_is_hidden(machine):
    top = "sys/fs/cgroup/memory/"
    root = machine(
        **{
            "proc/self/cgroup": "9:cpu:/x\n4:memory:/outside/name\n0::/\n",
            f"{top}memory.limit_in_bytes": f"{512 * MIB}\n",
            f"{top}memory.usage_in_bytes": f"{128 * MIB}\n",
            f"{top}memory.stat": f"total_active_file {MIB}\ntotal_inactive_file {MIB}\n",
        }
    )
    assert available_memory(root) == (512 - 128 + 2) * MIB


def test_a_limit_that_is_used_up_leaves_nothing(machine):
    root = machine(
        **{
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": f"{MIB}\n",
            "sys/fs/cgroup/memory.current": f"{2 * MIB}\n",
        }
    )
    assert available_memory(root) == 0


def test_this_machine_has_some():
    assert available_memory() > 64 * MIB


def test_a_limit_of_the_address_space_counts_less_what_threads_set_aside(machine):
    threads = 72 * MIB * (os.cpu_count() or 1)
    root = machine(
        **{
            "proc/self/limits": f"Limit  Soft Limit  Hard Limit  Units\n"
            f"Max address space         {threads + 900 * MIB}   unlimited   bytes\n",
            "proc/self/status": f"Name: x\nVmPeak: 1 kB\nVmSize:\t  {300 * 1024} kB\n",
        }
    )
    assert available_memory(root) == 600 * MIB


def test_no_limit_of_the_address_space(machine):
    line = "Max address space         unlimited            unlimited            bytes\n"
    assert available_memory(machine(**{"proc/self/limits": line})) == 4096 * MIB


def test_sizes_read_in_the_unit_that_shows_them():
    assert [gigabytes(size) for size in (4_200_000_000, 100_000_000, 67_400_000, 0)] == [
        "4.2 GB",
        "0.1 GB",
        "67 MB",
        "0 MB",
    ]
