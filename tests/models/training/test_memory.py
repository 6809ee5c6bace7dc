import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
FAULTS = """
import resource, models, torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(25_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not HUGE_PAGES.is_file() or "[madvise]" not in HUGE_PAGES.read_text(),
    reason="needs a kernel that gives huge pages to those who ask, and to nobody else: otherwise asking makes no difference to see",
)
def test_large_tensors_lie_in_huge_pages() -> None:
    def faults(**more: str) -> int:
        return int(subprocess.run([sys.executable, "-c", FAULTS], env={**os.environ, **more}, capture_output=True, check=True).stdout)

    assert faults() * 20 < faults(THP_MEM_ALLOC_ENABLE="0")
