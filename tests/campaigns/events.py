"""Followers that are slow, late and cut off: every hole in the events is mended or told, none goes unnoticed.

The daemon tells faster than its followers read, keeps a bounded number, and loses some on the way besides. What each
follower was told must be the whole sequence: every event once and in order, or inside a gap that was named.
"""

from __future__ import annotations

import random
import tempfile
import threading
from pathlib import Path

from ampd.control.follow import Lost, NewBoot, Silent, Told
from ampd.core.protocol import Event
from tests.control.telling import Following, Teller

NAME = "events"
EVENTS = 100_000
_FOLLOWERS = 3


def case(seed: int, count: int = EVENTS) -> None:
    """Tell `count` events to some followers, and look at what each of them has."""
    draw = random.Random(seed)
    losing, kept = draw.choice([0.0, 0.01, 0.3]), draw.choice([count // 50, count // 10, 2 * count])
    with (
        tempfile.TemporaryDirectory(prefix="ampd-") as home,
        Teller(Path(home) / "job", losing=losing, kept=max(1, kept), seed=seed) as teller,
    ):
        followings = [Following(teller.endpoint, since=0) for _ in range(_FOLLOWERS)]
        readers = [threading.Thread(target=_read, args=(f, count), daemon=True) for f in followings]
        for reader in readers:
            reader.start()
        while teller.ring.last < count:
            teller.tell(min(draw.randint(1, count // 5), count - teller.ring.last))
        for reader in readers:
            reader.join(60)
            assert not reader.is_alive(), "a follower never heard of the last event"
    for following in followings:
        check(following.told, count)


def _read(following: Following, count: int) -> None:
    following.until(count)


def check(told: list[Told], count: int) -> None:
    """The numbers 1 to `count`, each told once or in a gap; raises AssertionError at the first that is neither."""
    last = 0
    for each in told:
        match each:
            case Event(seq=seq):
                assert seq == last + 1, f"event {seq} after {last}"
                last = seq
            case Lost(first=first, last=until):
                assert first == last + 1, f"a gap from {first} after {last}"
                last = until
            case NewBoot():
                raise AssertionError(f"there was one boot only: {each}")
            case Silent():
                pass
    assert last == count, f"the last event told is {last} of {count}"
