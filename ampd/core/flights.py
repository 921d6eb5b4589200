"""Commands that were admitted and not answered yet: where each is on its way, and who waits for it.

    Act          RECORDING -> HELD -> SENT -> (ON_TRIAL ->) CLOSING -> answered
    any other                 HELD -> SENT            -> answered

An action is on disk before it is sent (RECORDING) and its outcome is on disk before it is answered (CLOSING), so a
crash of the daemon between any two of these loses nothing and doubles nothing. HELD waits for a worker that takes
orders. A client that asks again with the same id joins the flight; it does not start another.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator

import msgspec

from ampd.core import messages as m
from ampd.core.protocol import Command

MOST_IN_FLIGHT = 64
"""Enough for any operator and script, and a bound on what one crash leaves unanswered."""
_MOST_CLIENTS = 8
"""Of one flight: a client that comes back under a new identity for each try must not grow memory."""

PAUSE_AGAIN = "supervisor:pause-again"
"""The id of an order of our own; no client's id may have a colon."""

FlightOrder = m.Act | m.Checkpoint | m.Pause | m.Resume | m.Stop


class Leg(enum.Enum):
    """How far a command has come."""

    RECORDING = enum.auto()
    HELD = enum.auto()
    SENT = enum.auto()
    ON_TRIAL = enum.auto()
    CLOSING = enum.auto()


class Flight(msgspec.Struct, frozen=True, kw_only=True):
    """One admitted command. `command` is None where no client of this daemon asked for it.

    `is_restored`: it was admitted by an earlier daemon of the job, and is still in the journal.
    """

    order: FlightOrder
    command: Command | None = None
    clients: tuple[object, ...] = ()
    leg: Leg = Leg.HELD
    is_restored: bool = False

    @property
    def id(self) -> str:
        """The request's id."""
        return self.order.request_id

    @property
    def is_under_way(self) -> bool:
        """An outcome is possible: also a worker that was lost may have reported it with its last words."""
        return self.leg in (Leg.HELD, Leg.SENT)


class Flights:
    """The table of flights by request id, in the order of admission."""

    def __init__(self) -> None:
        self._table: dict[str, Flight] = {}

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[Flight]:
        return iter(tuple(self._table.values()))

    def get(self, request_id: str) -> Flight | None:
        """The flight of a request, if it has one."""
        return self._table.get(request_id)

    def the(self, request_id: str) -> Flight:
        """The flight of a request that has one."""
        return self._table[request_id]

    def has_room(self, order: FlightOrder) -> bool:
        """Whether one more fits; a stop has one place in reserve, so that a flood cannot keep a job running."""
        return len(self._table) < MOST_IN_FLIGHT + isinstance(order, m.Stop)

    def add(self, flight: Flight) -> None:
        """Admit a command."""
        assert flight.id not in self._table, f"request {flight.id} is in flight already"
        self._table[flight.id] = flight

    def hold_again(self, hold: m.Holding) -> None:
        """Admit an order of our own, that nobody waits for: to hold for what the last worker held for."""
        pause = m.Pause(request_id=PAUSE_AGAIN, reason=hold.reason, until_saved=hold.until_saved)
        self.add(Flight(order=pause))

    def restore(self, pending: Iterable[m.Act], on_trial: m.Act | None) -> None:
        """Admit what an earlier daemon admitted and did not finish."""
        for act in pending:
            self.add(Flight(order=act, is_restored=True))
        if on_trial is not None:
            self.add(Flight(order=on_trial, leg=Leg.ON_TRIAL, is_restored=True))

    def move(self, flight: Flight, leg: Leg) -> Flight:
        """The flight, one leg on (or back)."""
        self._table[flight.id] = msgspec.structs.replace(flight, leg=leg)
        return self._table[flight.id]

    def join(self, flight: Flight, client: object, command: Command) -> None:
        """One more client waits for the same command."""
        clients = (*(c for c in flight.clients if c != client), client)[-_MOST_CLIENTS:]
        self._table[flight.id] = msgspec.structs.replace(flight, clients=clients, command=command)

    def land(self, flight: Flight) -> None:
        """The command is answered."""
        del self._table[flight.id]

    def on(self, leg: Leg, *orders: type[m.Message]) -> list[Flight]:
        """Flights on a leg, of some kinds of order (or of any)."""
        return self._where(lambda f: f.leg is leg and (not orders or isinstance(f.order, orders)))

    def of(self, *orders: type[m.Message]) -> list[Flight]:
        """Flights of some kinds of order."""
        return self._where(lambda f: isinstance(f.order, orders))

    def true_of_a_run(self) -> list[Flight]:
        """Held pauses and resumes that a job which runs answers: all, where the last is a resume."""
        holds = self.on(Leg.HELD, m.Pause, m.Resume)
        is_true = bool(holds) and isinstance(holds[-1].order, m.Resume)
        return holds if is_true else [flight for flight in holds if isinstance(flight.order, m.Resume)]

    def sent_up_to(self, request_id: str, kind: type[m.Message]) -> list[Flight]:
        """What was sent of a kind, up to the one of this id; all without an id, none where it is not among them."""
        sent = self.on(Leg.SENT, kind)
        ids = [flight.id for flight in sent]
        return sent[: ids.index(request_id) + 1 if request_id in ids else len(ids) * (not request_id)]

    def _where(self, wanted: Callable[[Flight], bool]) -> list[Flight]:
        return [flight for flight in self._table.values() if wanted(flight)]
