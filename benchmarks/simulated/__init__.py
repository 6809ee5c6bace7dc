"""Parts of `python -m benchmarks.simulate`: what plans, stores, caches and workers cost as they grow."""
