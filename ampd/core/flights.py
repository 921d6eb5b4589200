"""Commands that were admitted and not answered yet: where each is on its way, and who waits for it.

    Act          RECORDING -> HELD -> SENT -> CLOSING -> answered
    any other                 HELD -> SENT            -> answered

An action is on disk before it is sent (RECORDING) and its outcome is on disk before it is answered (CLOSING), so a
crash of the daemon between any two of these loses nothing and doubles nothing. HELD waits for a worker that takes
orders. A client that asks again with the same id joins the flight; it does not start another.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator

import msgspec

from ampd.core import messages as m
from ampd.core.protocol import Command

MOST_IN_FLIGHT = 64
"""Enough for any operator and script, and a bound on what one crash leaves unanswered."""
_MOST_CLIENTS = 8
"""Of one flight: a client that comes back under a new identity for each try must not grow memory."""

FlightOrder = m.Act | m.Checkpoint | m.Pause | m.Resume | m.Stop


class Leg(enum.Enum):
    """How far a command has come."""

    RECORDING = enum.auto()
    HELD = enum.auto()
    SENT = enum.auto()
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

    def has_room(self, order: FlightOrder) -> bool:
        """Whether one more fits; a stop has one place in reserve, so that a flood cannot keep a job running."""
        return len(self._table) < MOST_IN_FLIGHT + isinstance(order, m.Stop)

    def add(self, flight: Flight) -> None:
        """Admit a command."""
        assert flight.id not in self._table, f"request {flight.id} is in flight already"
        self._table[flight.id] = flight

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

    def _where(self, wanted: Callable[[Flight], bool]) -> list[Flight]:
        return [flight for flight in self._table.values() if wanted(flight)]
