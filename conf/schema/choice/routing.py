"""Settings of `route: auto`: price of the pilots, routes tried, seeds, rounds."""

from __future__ import annotations

from pydantic import field_validator

from conf.schema.base import Settings, setting
from conf.schema.route import Route


class Routing(Settings):
    """Choice of the route by pilots, where `route` is auto; see docs/how-to/route.md."""

    share: float = setting(
        0.1, "Share of the stages' FLOPs that the pilots may take; the winner has the rest", "fraction", identity=False, gt=0, le=0.5
    )
    routes: tuple[Route, ...] = setting((), "Routes tried; none: all that the ladder can have", "routes", identity=False)
    seeds: int = setting(
        1,
        "Pilots of a route in a round, each with a seed of its own; from two on the noise counts them",
        "seeds",
        identity=False,
        ge=1,
        le=20,
    )
    factor: int = setting(
        2, "A round keeps one in so many routes, and the next round's pilots are longer accordingly", "routes", identity=False, ge=2, le=10
    )
    least_steps: int = setting(
        10,
        "Steps of a pilot's last student at least; a route that then costs more than its share has no pilot",
        "steps",
        identity=False,
        ge=1,
        le=1_000_000,
    )
    warm_start: bool = setting(
        True,
        "The winner's students begin with the weights of its last pilot's, but those that are made from a parent",
        identity=False,
        added=True,
    )

    @field_validator("routes")
    @classmethod
    def _routes_to_try(cls, value: tuple[Route, ...]) -> tuple[Route, ...]:
        if "auto" in value:
            raise ValueError("got auto; allowed: any other route. auto chooses among these.")
        if twice := sorted({route for route in value if value.count(route) > 1}):
            raise ValueError(f"got {', '.join(twice)} more than once; allowed: each route once. Leave the others out.")
        if len(value) == 1:
            raise ValueError(f"got {value[0]!r} alone; allowed: two routes or more, or none for all. For one route set `route` to it.")
        return value
