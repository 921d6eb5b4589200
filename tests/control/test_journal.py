"""The journal on a real disk: what survives a crash, in which order, and what damage does."""

from __future__ import annotations

import asyncio
import os
import resource
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from ampd.control import records as j
from ampd.control.journal import Journal
from ampd.core import messages as m
from ampd.core.change import Difference
from ampd.core.protocol import Code, Done, Refusal, Reply
from ampd.errors import CheckpointError

SET = m.Configure(changes={"amp.dtype": "bfloat16"}, base=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


@pytest.fixture
def reopen(path: Path) -> Iterator[Callable[[], Journal]]:
    """Opens the journal as the next start would; closes it at the end."""
    opened: list[Journal] = []

    def again() -> Journal:
        opened.append(Journal.open(path))
        return opened[-1]

    yield again
    for journal in opened:
        journal.close()


def write(journal: Journal, *records: j.Record) -> None:
    """Append records one after the other, then close."""

    async def run() -> None:
        for record in records:
            await journal.append(record)

    asyncio.run(run())
    journal.close()


def accepted(request_id: str, action: m.Action = SET) -> j.Accepted:
    return j.Accepted(time=1.0, request_id=request_id, action=action, author="alice", reason="why")


def applied(request_id: str, seq: int, *, window: int = 10, action: m.Action = SET) -> j.Applied:
    done = m.AppliedAction(
        seq=seq, window=window, revision=seq + 1, action=action, request_id=request_id, author="alice"
    )
    return j.Applied(time=2.0, applied=done, boot="b" if request_id else "")


def refused(request_id: str) -> j.Refused:
    return j.Refused(time=2.0, reply=Refusal(id=request_id, boot="b", code=Code.APPLY_FAILED, message="no"))


def reply(request_id: str) -> Reply:
    return Done(
        id=request_id,
        boot="b",
        revision=2,
        window=10,
        result={"changes": [], "dry_run": False, "trial": None},
    )


def test_a_new_journal_is_empty(path: Path, reopen: Callable[[], Journal]) -> None:
    """Opening makes the file, for the owner only, and it says nothing."""
    journal = reopen()

    assert (journal.account.applied(), journal.account.pending(), journal.account.answer_of("r1")) == (
        (),
        (),
        None,
    )
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_was_applied_survives(reopen: Callable[[], Journal]) -> None:
    """Applied actions come back in the order of their numbers, with everything in them."""
    first, second = applied("r1", 1), applied("r2", 2, window=20, action=m.Reset(what="scaler"))
    write(reopen(), accepted("r1"), first, accepted("r2"), second)

    assert reopen().account.applied() == (first.applied, second.applied)


def test_accepted_and_not_settled_is_pending(reopen: Callable[[], Journal]) -> None:
    """Only what was promised and neither applied nor refused is to be done again, oldest first."""
    write(reopen(), *map(accepted, ("r1", "r2", "r3", "r4")), applied("r2", 1), refused("r3"))

    assert reopen().account.pending() == tuple(
        m.Act(request_id=request_id, action=SET, author="alice", reason="why") for request_id in ("r1", "r4")
    )


def test_a_repeated_request_gets_the_first_answer(reopen: Callable[[], Journal]) -> None:
    """Answers, refusals too, are the same after a restart."""
    write(reopen(), accepted("r1"), applied("r1", 1), accepted("r2"), refused("r2"), accepted("r3"))

    again = reopen()
    assert again.account.answer_of("r1") == reply("r1")
    assert again.account.answer_of("r2") == refused("r2").reply
    assert again.account.answer_of("r3") is None


def test_the_journal_knows_at_once_what_was_appended(reopen: Callable[[], Journal]) -> None:
    """The same questions have the same answers before a restart."""
    journal = reopen()

    write(journal, accepted("r1"), applied("r1", 1), accepted("r2"))

    assert [act.request_id for act in journal.account.pending()] == ["r2"]
    assert journal.account.answer_of("r1") == reply("r1")


def test_an_action_told_twice_counts_once(reopen: Callable[[], Journal]) -> None:
    """A worker that replays an action after a crash reports it again; the schedule has it once."""
    write(reopen(), applied("", 1, window=5), applied("", 2), applied("", 1, window=6))

    assert [(done.seq, done.window) for done in reopen().account.applied()] == [(1, 6), (2, 10)]


def test_a_policys_action_has_no_answer(reopen: Callable[[], Journal]) -> None:
    """What nobody asked for is applied and answers nobody."""
    write(reopen(), applied("", 1))

    assert reopen().account.answer_of("") is None


def test_a_line_torn_anywhere_is_cut_off(path: Path, reopen: Callable[[], Journal]) -> None:
    """A crash in the middle of the last line loses that line only, wherever it was cut."""
    write(reopen(), accepted("r1"), accepted("r2"))
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1

    for cut in range(first, len(whole)):
        path.write_bytes(whole[:cut])
        Journal.open(path).close()
        assert path.read_bytes() == whole[:first]


def test_a_torn_line_does_not_spoil_the_next(path: Path, reopen: Callable[[], Journal]) -> None:
    """After a torn line was cut off, the journal goes on with whole lines."""
    write(reopen(), accepted("r1"), accepted("r2"))
    path.write_bytes(path.read_bytes()[:-10])

    write(reopen(), accepted("r3"))

    assert [act.request_id for act in reopen().account.pending()] == ["r1", "r3"]


@pytest.mark.parametrize("garbage", [b"\0" * 50 + b"\n", b"{}\n", b"\xff\xfe\n", b'{"record": "accepted"}\n'])
def test_a_last_line_of_garbage_is_cut_off(garbage: bytes, path: Path, reopen: Callable[[], Journal]) -> None:
    """What a power cut left at the end was never promised."""
    write(reopen(), accepted("r1"))
    with path.open("ab") as file:
        file.write(garbage)

    assert len(reopen().account.pending()) == 1
    assert garbage not in path.read_bytes()


def test_damage_in_the_middle_is_refused_by_line(path: Path, reopen: Callable[[], Journal]) -> None:
    """A damaged line with good ones after it is no torn write: nothing is guessed, and nothing is changed."""
    write(reopen(), accepted("r1"), accepted("r2"), accepted("r3"))
    damaged = path.read_bytes().replace(b'"r2"', b'"r2')
    path.write_bytes(damaged)

    with pytest.raises(CheckpointError, match="line 2 is damaged"):
        reopen()

    assert path.read_bytes() == damaged


def test_a_record_is_synced_before_append_returns(
    path: Path, reopen: Callable[[], Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Write, then fsync of the same file, then the return: a promise is on disk before it is given."""
    journal, order = reopen(), list[str]()
    real_write, real_sync = os.pwrite, os.fsync

    def pwrite(file: int, data: bytes, at: int) -> int:
        order.append("write")
        return real_write(file, data, at)

    def fsync(file: int) -> None:
        real_sync(file)
        order.append(f"sync {os.readlink(f'/proc/self/fd/{file}') == str(path)}")

    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(os, "fsync", fsync)

    async def run() -> None:
        for request_id in ("r1", "r2"):
            await journal.append(accepted(request_id))
            order.append("returned")

    asyncio.run(run())

    assert order == ["write", "sync True", "returned"] * 2


def test_the_loop_is_free_while_the_disk_is_slow(
    reopen: Callable[[], Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An fsync that hangs holds up its own append and nothing else on the loop."""
    journal, go = reopen(), threading.Event()
    real_sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (go.wait(10), real_sync(file)))

    async def run() -> tuple[bool, int]:
        waiting = asyncio.ensure_future(journal.append(accepted("r1")))
        await asyncio.sleep(0)
        was_done, was_pending = waiting.done(), len(journal.account.pending())
        go.set()
        await waiting
        return was_done, was_pending

    assert asyncio.run(run()) == (False, 0)
    assert len(journal.account.pending()) == 1


def test_appends_at_once_keep_their_order(path: Path, reopen: Callable[[], Journal]) -> None:
    """Records are written in the order in which append was called."""
    journal = reopen()

    async def run() -> None:
        appends: list[Awaitable[None]] = [journal.append(accepted(f"r{number}")) for number in range(50)]
        await asyncio.gather(*appends)

    asyncio.run(run())

    assert [act.request_id for act in reopen().account.pending()] == [f"r{number}" for number in range(50)]


def test_a_crowd_shares_an_fsync(reopen: Callable[[], Journal], monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes while the disk is busy becomes durable with the next fsync, all of it at once."""
    journal, go, syncs = reopen(), threading.Event(), list[int]()
    real_sync = os.fsync

    def fsync(file: int) -> None:
        go.wait(10)
        syncs.append(file)
        real_sync(file)

    monkeypatch.setattr(os, "fsync", fsync)

    async def run() -> None:
        appends = [asyncio.ensure_future(journal.append(accepted(f"r{number}"))) for number in range(50)]
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(*appends)

    asyncio.run(run())

    assert len(syncs) == 2
    assert [act.request_id for act in reopen().account.pending()] == [f"r{number}" for number in range(50)]


def test_a_crowd_that_the_disk_refuses_is_told_each(path: Path, reopen: Callable[[], Journal]) -> None:
    """Records that share a write share its failure: none is recorded, everybody hears it, the next one works."""
    journal = reopen()

    async def crowd() -> list[BaseException | None]:
        appends = [journal.append(accepted(f"r{number}")) for number in range(20)]  # the first goes alone
        return list(await asyncio.gather(*appends, return_exceptions=True))

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, limits[1]))
    try:
        told = asyncio.run(crowd())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    write(journal, accepted("r20"))

    assert told[0] is None
    assert [type(error) for error in told[1:]] == [CheckpointError] * 19
    assert [act.request_id for act in reopen().account.pending()] == ["r0", "r20"]


def test_a_long_journal_is_shortened_while_it_is_used(path: Path) -> None:
    """Between two fsyncs, without a word to anybody who appends."""
    journal = Journal.open(path, slack=10)
    write(journal, *(accepted("r1") for _ in range(200)))

    assert path.read_bytes().count(b"\n") <= 12
    assert [act.request_id for act in journal.account.pending()] == ["r1"]


def test_a_cancelled_append_still_counts(reopen: Callable[[], Journal]) -> None:
    """What is on disk is known to the journal too, even where the one who waited went away."""
    journal = reopen()

    async def run() -> None:
        waiting = asyncio.ensure_future(journal.append(accepted("r1")))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await journal.append(accepted("r2"))

    asyncio.run(run())

    assert [act.request_id for act in journal.account.pending()] == ["r1", "r2"]


def test_a_full_disk_loses_nothing_that_was_there(path: Path, reopen: Callable[[], Journal]) -> None:
    """A write that the system refuses raises, leaves the file as it was, and the next one works."""
    journal = reopen()

    async def run() -> None:
        await journal.append(accepted("r1"))
        size, limits = path.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))
        try:
            with pytest.raises(CheckpointError, match="cannot write to the journal"):
                await journal.append(accepted("r2"))
            assert path.stat().st_size == size
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        await journal.append(accepted("r3"))

    asyncio.run(run())

    assert [act.request_id for act in reopen().account.pending()] == ["r1", "r3"]


def test_a_directory_in_its_place_is_explained(path: Path) -> None:
    """A journal that cannot be opened is named."""
    path.mkdir()

    with pytest.raises(CheckpointError, match=r"cannot open the journal .*journal\.jsonl"):
        Journal.open(path)


def test_revisions_survive_with_what_they_moved(path: Path, reopen: Callable[[], Journal]) -> None:
    """Who, when, why and old -> new of every change, also of one that nobody waited for; a reset is none."""
    moved = (Difference(key="amp.dtype", old="auto", new="bfloat16"),)
    with_moved = msgspec.structs.replace(applied("", 1), differences=moved)
    write(reopen(), with_moved, applied("r2", 2, action=m.Reset(what="stats")))

    (revision,) = reopen().account.revisions()

    assert (revision.number, revision.window, revision.time, revision.author) == (2, 10, 2.0, "alice")
    assert (revision.values, revision.differences) == (SET.changes, moved)


def test_a_journal_without_differences_is_read(path: Path, reopen: Callable[[], Journal]) -> None:
    """One that was written before they were recorded: the values that a change set are there all the same."""
    write(reopen(), applied("r1", 1))
    lines = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    del lines[0]["differences"], lines[0]["applied"]["action"]["dropped"]
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))

    (revision,) = reopen().account.revisions()

    assert (revision.values, revision.differences, revision.dropped) == (SET.changes, (), ())
