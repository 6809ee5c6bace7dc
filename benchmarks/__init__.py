import os

from conf.native import native_settings

os.environ.update(native_settings(os.environ))  # before anything imports torch, and for the processes that benchmarks start
