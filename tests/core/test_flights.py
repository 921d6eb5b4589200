"""The tables of what is in flight and of what was answered, at their bounds."""

from __future__ import annotations

import pytest

from ampd.core import messages as m
from ampd.core import protocol as p
from ampd.core.flights import MOST_IN_FLIGHT, Flight, Flights, Leg
from ampd.core.memory import MOST_REMEMBERED, Memory
from ampd.core.protocol import Code


def _flight(number: int) -> Flight:
    return Flight(order=m.Pause(request_id=f"request-{number}"))


def test_a_stop_fits_where_nothing_else_does() -> None:
    """One place is kept for it, and only one."""
    flights = Flights()
    for number in range(MOST_IN_FLIGHT):
        flights.add(_flight(number))
    stop = m.Stop(request_id="stop-1")

    assert not flights.has_room(m.Pause(request_id="one-more"))
    assert flights.has_room(stop)
    flights.add(Flight(order=stop))
    assert not flights.has_room(m.Stop(request_id="stop-2"))


def test_an_id_flies_once() -> None:
    """Admitting an id twice would answer the first client with the second's command."""
    flights = Flights()
    flights.add(_flight(1))

    with pytest.raises(AssertionError, match="in flight already"):
        flights.add(_flight(1))


def test_clients_of_one_flight_are_bounded() -> None:
    """A client that comes back under new names for ever does not grow memory; the newest are answered."""
    flights = Flights()
    flights.add(_flight(1))
    for number in range(100):
        flight = flights.get("request-1")
        assert flight is not None
        flights.join(flight, f"client-{number}", p.Pause())

    flight = flights.get("request-1")
    assert flight is not None
    assert flight.clients[-1] == "client-99"
    assert len(flight.clients) == 8


def test_flights_keep_their_order() -> None:
    """Orders go out in the order in which commands were admitted, whatever moved since."""
    flights = Flights()
    for number in range(3):
        flights.add(_flight(number))
    flights.move(flights.on(Leg.HELD)[0], Leg.SENT)
    flights.move(flights.on(Leg.SENT)[0], Leg.HELD)

    assert [flight.id for flight in flights.on(Leg.HELD)] == ["request-0", "request-1", "request-2"]


def test_memory_forgets_the_oldest_first() -> None:
    """It is bounded, and holds the newest answers."""
    memory = Memory()
    for number in range(MOST_REMEMBERED + 1):
        memory.keep(p.Pause(), p.Done(id=f"id-{number}", boot="b", revision=1, window=1, result={}))

    assert memory.of("id-0") is None
    assert memory.of(f"id-{MOST_REMEMBERED}") is not None


@pytest.mark.parametrize(
    ("code", "is_kept"), [(Code.BUSY, False), (Code.NOT_READY, False), (Code.CONFLICT, True)]
)
def test_a_refusal_that_may_pass_is_not_remembered(code: Code, is_kept: bool) -> None:
    """The same request may succeed later, so it must be judged then."""
    memory = Memory()

    memory.keep(p.Pause(), p.Refusal(id="id-1", boot="b", code=code, message="", retryable=code.is_retryable))

    assert (memory.of("id-1") is not None) is is_kept
