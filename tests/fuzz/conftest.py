"""How many examples the property tests try: few in `make test`, as many as time allows in `make fuzz`."""

import os

from hypothesis import HealthCheck, settings

from tests.fuzz.tried import write_counts

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "12"))
settings.register_profile(
    "fuzz",
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,  # `make test` tries the same ones every time
    print_blob=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)


def pytest_sessionfinish() -> None:
    write_counts()
