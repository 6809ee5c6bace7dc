"""Settings of OpenMP and of the allocator, for processes that train.

Threads: PyTorch's wheels for Linux use GCC's OpenMP, whose threads turn 300,000 times in a loop for each other before they sleep. Where
other work shares the cores, the thread that is waited for has then no processor to finish on. Twenty thousand turns (0.4 to 1
millisecond) cost an idle machine little. The number of threads, and so every sum, stays as it is (libgomp's manual, GOMP_SPINCOUNT;
`python -m benchmarks.busy`).

Memory: the tensors of a step are freed and made again at every step. glibc gives large blocks back to the system each time, which costs a
page fault for each page; here it keeps them, in huge pages (glibc's manual, "Memory Allocation Tunables"; `hugetlb` from 2.35).
PyTorch's own huge pages are off then, as they round every tensor of 2 MB and more up to its double, in the worst case. Free blocks of a
few bytes join their neighbours at once (`tcache_count=0`, `mxfast=0`): each aligned tensor leaves such a block beside it, and those that
glibc sets aside for small requests keep the large ones around them apart (`python -m benchmarks.allocator`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

TUNABLES = "GLIBC_TUNABLES"
OPENMP = {"GOMP_SPINCOUNT": "20000"}
KEEP = f"glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold={1 << 30}:glibc.malloc.trim_threshold={64 << 20}"  # large blocks
JOIN = "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0"  # small ones
ALLOCATOR = {TUNABLES: f"{KEEP}:{JOIN}", "THP_MEM_ALLOC_ENABLE": "0"}
OLDEST = (2, 35)  # glibc with `hugetlb`
TRAINING = ("run", "rerun", "prove", "plan")  # commands that train, or measure how fast a training is


def native_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of this module that are not set and that the system's library knows."""
    wanted = {} if "OMP_WAIT_POLICY" in environment else OPENMP
    if _has_huge_pages() and not ALLOCATOR.keys() & environment.keys():
        wanted = {**wanted, **ALLOCATOR}
    return {key: value for key, value in wanted.items() if key not in environment}


def prepare_process(arguments: Sequence[str]) -> None:
    """Set them for this process and those that it starts; one that will train starts again, since glibc reads its own at the start.

    To be called before torch is imported. The process keeps its id.

    Args:
        arguments: Of the command line, the command first.
    """
    missing = native_settings(os.environ)
    os.environ.update(missing)
    if TUNABLES in missing and arguments and arguments[0] in TRAINING and sys.executable:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _has_huge_pages() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        name, _, number = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        return name == "glibc" and tuple(map(int, number.split(".")[:2])) >= OLDEST
    except (ValueError, OSError):  # a library of another kind
        return False
