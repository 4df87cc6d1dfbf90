"""What a list of everything has of what was known before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Place = tuple[tuple[str, str] | None, str]  # the resource that an object belongs to, and the object's uid


class Seen:
    """What is `known` is marked in place: several kinds may be listed at once, and what each keeps for it adds up."""

    def __init__(self, known: Iterable[Place]) -> None:
        self._known = dict.fromkeys(known, False)
        self._others = set[str]()  # uids of what was not known so

    def note(self, key: tuple[str, str] | None, raw: Mapping[str, Any]) -> None:
        """An object of the list."""
        uid = raw["metadata"].get("uid", "")
        if (key, uid) in self._known:
            self._known[key, uid] = True
        else:
            self._others.add(uid)

    def gone(self) -> set[Place]:
        """What was known and is not in the list."""
        return {place for place, is_there in self._known.items() if not is_there}

    def elsewhere(self, gone: set[Place]) -> set[str]:
        """The uids of those `gone` that the list has all the same, as another resource's."""
        uids = {uid for _, uid in gone}
        there = {uid for (_, uid), is_there in self._known.items() if is_there and uid in uids}
        return uids & (self._others | there)
