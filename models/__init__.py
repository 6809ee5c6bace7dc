"""Architectures, losses, training and evaluation, without Prefect and MLflow."""

import os

# torch reads this at its first allocation: blocks of 2 MB and more then come in huge pages, where the kernel allows it. A step over 49,152
# ids otherwise spends a tenth of its time on page faults (docs/performance.md).
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
