"""Environment of all tests: no hub, one thread a process, as two processes share the cores. Libraries read it when imported."""

from __future__ import annotations

import os

os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "true"})
os.environ.setdefault("OMP_NUM_THREADS", "1")
