"""Rooms of a checkout: files, lines, the imports between them, and circles.

`python -m benchmarks.rooms [CHECKOUT]`; of another checkout, to compare it with this one. Nothing in it is imported or run.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import grimp
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

LAYERS = ("flows", "tasks", "models", "conf")


class House(NamedTuple):
    """The modules of a checkout and the imports `(from, to)` between them, and between their rooms with the number of each."""

    files: dict[str, list[Path]]  # of each room
    modules: set[tuple[str, str]]
    rooms: Counter[tuple[str, str]]


def room_of(root: Path, module: str) -> str:
    """The room of a module: its package inside a layer, or the layer itself for a module that lies at its top."""
    layer, *rest = module.split(".")
    return f"{layer}.{rest[0]}" if rest and (root / layer / rest[0]).is_dir() else layer


def read(root: Path) -> House:
    """Read all modules of a checkout."""
    sys.path.insert(0, str(root))
    try:
        graph = grimp.build_graph(*LAYERS, cache_dir=None)
    finally:
        sys.path.remove(str(root))
    files: dict[str, list[Path]] = {}
    for path in sorted(path for layer in LAYERS for path in (root / layer).rglob("*.py")):
        if path.stat().st_size:
            module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            files.setdefault(room_of(root, module), []).append(path)
    modules = {(one, other) for one in graph.modules for other in graph.find_modules_directly_imported_by(one)}
    pairs = [(room_of(root, one), room_of(root, other)) for one, other in modules]
    return House(files, modules, Counter((one, other) for one, other in pairs if one != other))


def circles(arrows: set[tuple[str, str]]) -> list[list[str]]:
    """Groups of two or more nodes that reach one another."""
    names = sorted({name for arrow in arrows for name in arrow})
    if not names:
        return []
    places = [[names.index(arrow[side]) for arrow in arrows] for side in (0, 1)]
    _, groups = connected_components(coo_array(([1] * len(arrows), places), shape=(len(names),) * 2), connection="strong")
    found = [[name for name, group in zip(names, groups, strict=True) if group == each] for each in sorted(set(groups))]
    return [group for group in found if len(group) > 1]


def main() -> None:
    """Print the table of rooms, the arrows between them, and the circles."""
    root = Path(sys.argv[1] if sys.argv[1:] else ".").resolve()
    house = read(root)
    print("| room | files | lines | longest file | imports from |\n|---|---|---|---|---|")
    for room, files in house.files.items():
        lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
        longest = max(lines, key=lines.__getitem__)
        used = ", ".join(f"{other} {count}" for (one, other), count in sorted(house.rooms.items()) if one == room)
        print(f"| {room} | {len(files)} | {sum(lines.values()):,} | {longest.name} {lines[longest]} | {used} |")
    print(f"\n{sum(map(len, house.files.values()))} files, {len(house.modules)} imports between modules")
    print(f"{len(house.rooms)} arrows between {len(house.files)} rooms, {house.rooms.total()} imports along them")
    for what, arrows in (("modules", house.modules), ("rooms", set(house.rooms))):
        found = circles(arrows)
        print(f"circles of {what}: {'; '.join(', '.join(group) for group in found) or 'none'}")


if __name__ == "__main__":
    main()
