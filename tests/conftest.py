"""For all tests: no hub. The libraries read this when they are imported."""

from __future__ import annotations

import os

os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "true"})
