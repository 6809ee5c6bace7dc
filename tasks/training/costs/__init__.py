"""The one cost model: floating-point operations of trainings, by the examples that they read."""
