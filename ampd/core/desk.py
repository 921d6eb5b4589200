"""Where requests are taken and answered, each exactly once: admission, the way to the worker and back, the reply.

The desk knows nothing of processes. The supervisor tells it when a worker takes orders (`open`), is briefed, is
lost, and when the job is over (`close`); the desk decides who gets which reply. A reply that may be asked for again
is remembered: of actions by the journal, of the others in bounded memory here.

Refusals that may pass by themselves (BUSY, NOT_READY) are not remembered: the same request may succeed later.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec

from ampd.core import messages as m
from ampd.core import objections, replies
from ampd.core import stimuli as s
from ampd.core.answers import Answers
from ampd.core.flights import MOST_IN_FLIGHT, Flight, FlightOrder, Flights, Leg
from ampd.core.lifecycle import JobState
from ampd.core.objections import Objection
from ampd.core.protocol import Reply
from ampd.core.view import JobView
from ampd.core.watched import Watched, is_awaited

Instructions = list[s.AnyInstruction]


class Desk:
    """Admitted commands of one job, and what was answered."""

    def __init__(self, view: JobView) -> None:
        self._view = view
        self._flights = Flights()
        self._answers = Answers(view)
        self._is_open = False
        self._watched: Watched | None = None
        self._over: Objection | None = None
        self._writing = 0

    @property
    def is_quiet(self) -> bool:
        """No entry is on its way to the journal."""
        return self._writing == 0

    @property
    def in_flight(self) -> int:
        """Commands that were admitted and not answered."""
        return len(self._flights)

    def has(self, request_id: str) -> bool:
        """Whether this request is admitted and not answered."""
        return self._flights.get(request_id) is not None

    @property
    def has_holds(self) -> bool:
        """Whether a pause or a resume is under way."""
        return bool(self._flights.of(m.Pause, m.Resume))

    @property
    def has_actions(self) -> bool:
        """Whether an action is admitted that may yet move the configuration."""
        return any(flight.leg is not Leg.ON_TRIAL for flight in self._flights.of(m.Act))

    def restore(self, pending: Sequence[m.Act], watched: Watched | None) -> None:
        """Take over what an earlier daemon admitted and did not finish."""
        self._watched = watched
        self._flights.restore(pending, watched.act if watched is not None else None)

    # Requests.

    def repeated(self, asked: s.Requested) -> Instructions | None:
        """What to do where this id was seen before; None where it is new."""
        request = asked.request
        flight = self._flights.get(request.id)
        if flight is not None:
            return self._join(flight, asked)
        command, reply = self._answers.of(request.id) or (request.command, asked.stored)
        if reply is None:
            return None
        if command != request.command:
            return self.refuse(asked, objections.other_request(request.id))
        return [s.Answer(asked.client, reply)]

    def admit(self, asked: s.Requested, order: FlightOrder) -> Instructions:
        """Take a command on its way, or refuse it where there is no room or no job left."""
        if self._over is not None and not isinstance(order, m.Stop):
            return self.refuse(asked, self._over)
        if not self._flights.has_room(order):
            return self.refuse(asked, objections.busy(MOST_IN_FLIGHT))
        return self._start(Flight(order=order, command=asked.request.command, clients=(asked.client,)))

    def file(self, act: m.Act) -> Objection | Instructions:
        """Take an action that no client asked for; an Objection where it cannot be taken."""
        if self._over is not None:
            return self._over
        if not self._flights.has_room(act):
            return objections.busy(MOST_IN_FLIGHT)
        return self._start(Flight(order=act))

    def answer(self, asked: s.Requested, result: dict[str, Any], *, is_kept: bool = True) -> Instructions:
        """Answer at once; `is_kept` where the same id must get the same answer again."""
        reply = replies.done(self._view, asked.request.id, result)
        return self._answers.give((asked.client,), reply, asked.request.command if is_kept else None)

    def refuse(self, asked: s.Requested, objection: Objection) -> Instructions:
        """Refuse at once. Not remembered: nothing happened, so the same request is judged anew."""
        return self._answers.give((asked.client,), replies.refusal(self._view, asked.request.id, objection))

    # The worker comes and goes.

    def brief(self) -> tuple[m.Act, ...]:
        """The actions that a new worker must know of before it loads; they count as sent."""
        held = self._flights.on(Leg.HELD, m.Act)
        for flight in held:
            self._flights.move(flight, Leg.SENT)
        return tuple(flight.order for flight in held if isinstance(flight.order, m.Act))

    def open(self) -> Instructions:
        """A worker is ready and runs: what is true already is answered (the last of pauses and resumes counts),
        everything else that was held is sent.
        """
        self._is_open = True
        settled = self._flights.true_of_a_run()
        out = [*chain.from_iterable(self._done(flight, {"state": JobState.RUNNING}) for flight in settled)]
        return out + self._send_held()

    def shut(self) -> None:
        """Orders reach nobody from now on; reports may still come."""
        self._is_open = False

    def lose(self, *, hold: m.Holding | None) -> Instructions:
        """The worker is gone: what it had goes to the next one, save a checkpoint of state that is lost.

        A job that was paused is paused again, for the same reason.
        """
        self._is_open = False
        if hold is not None and not self.has_holds:
            self._flights.hold_again(hold)
        for flight in self._flights.on(Leg.SENT, m.Act, m.Pause, m.Resume):
            self._flights.move(flight, Leg.HELD)
        lost = objections.worker_lost()
        return [*chain.from_iterable(self._object(flight, lost) for flight in self._flights.of(m.Checkpoint))]

    def close(self, objection: Objection, stopped: dict[str, Any]) -> Instructions:
        """The job is over: nothing stays unanswered. `stopped` is the result of a stop.

        An action of an earlier daemon that nobody waits for stays in the journal, for the next start.
        """
        self.closing(objection)
        out: Instructions = []
        for flight in self._flights:
            if isinstance(flight.order, m.Stop):
                out += self._done(flight, stopped)
            elif flight.leg is Leg.ON_TRIAL:
                out += self._interrupt(flight, objection)
            elif not isinstance(flight.order, m.Act):
                out += self._object(flight, objection)
            elif flight.is_under_way:
                out += self._abandon(flight, objection)
        return out

    def closing(self, objection: Objection) -> None:
        """The job is ending: nothing new is admitted, what is with the worker may still come true."""
        self._is_open, self._over = False, objection

    # Reports.

    def applied(self, report: m.Applied) -> Instructions:
        """An action took effect: its reply goes out when that is on disk."""
        done, flight = report.applied, self._flights.get(report.applied.request_id)
        concluded = self._conclude(done)
        reply: Reply | None = None
        if flight is not None and flight.is_under_way:
            if is_awaited(done):
                self._flights.move(flight, Leg.ON_TRIAL)
                self._watched = Watched(applied=done, differences=report.differences)
            else:
                self._flights.move(flight, Leg.CLOSING)
                reply = replies.carried_out(done, report.differences, self._view.boot)
        return self._write(s.Taken(done, reply, report.differences, concluded))

    def _conclude(self, done: m.AppliedAction) -> Reply | None:
        """What whoever waits for the end of the trial is told, where this was it."""
        reply = self._watched.reply(done, self._view.boot) if self._watched is not None else None
        if reply is not None:
            self._watched = None
            self._flights.move(self._flights.the(reply.id), Leg.CLOSING)
        return reply

    def refused(self, report: m.Refused) -> Instructions:
        """The worker refused an order, and changed nothing."""
        flight = self._flights.get(report.request_id)
        if flight is None or not flight.is_under_way:
            return []
        objection = objections.of_worker(report)
        if isinstance(flight.order, m.Act):
            return self._reject(flight, objection)
        return self._object(flight, objection)

    def saved(self, report: m.Saved) -> Instructions:
        """A checkpoint is on disk; answers the one that asked for it."""
        flight = self._flights.get(report.request_id)
        return self._done(flight, replies.saved(report)) if flight is not None else []

    def save_failed(self, report: m.SaveFailed) -> Instructions:
        """A checkpoint could not be written."""
        flight, why = (
            self._flights.get(report.request_id),
            objections.not_saved(report.window, report.message),
        )
        return self._object(flight, why) if flight is not None else []

    def held(self, kind: type[m.Pause | m.Resume], request_id: str, state: JobState) -> Instructions:
        """The loop holds, or goes on: answers the one that asked and those sent before it (all, without an id)."""
        sent = self._flights.sent_up_to(request_id, kind)
        return [*chain.from_iterable(self._done(flight, {"state": state}) for flight in sent)]

    # The journal.

    def recorded(self, recorded: s.Recorded) -> Instructions:
        """An entry is on disk, or not: an action goes on its way, or its client hears the outcome."""
        self._writing -= 1
        match recorded.entry:
            case s.Accepted(act):
                return self._accepted(act, recorded.error)
            case s.Taken(applied, reply, _, concluded):
                trouble = objections.half_recorded(applied, recorded.error) if recorded.error else None
                return self._closed(concluded, trouble) + self._closed(reply, trouble)
            case s.Rejected(reply):
                return self._closed(reply, None)

    def _accepted(self, act: m.Act, error: str) -> Instructions:
        flight = self._flights.get(act.request_id)
        assert flight is not None and flight.leg is Leg.RECORDING, f"{act.request_id} was not being recorded"
        if error:
            return self._object(flight, objections.unrecorded(error))
        flight = self._flights.move(flight, Leg.HELD)
        if self._over is not None and self._view.state.is_final:
            return self._abandon(flight, self._over)
        return self._send_held()

    def _closed(self, reply: Reply | None, trouble: Objection | None) -> Instructions:
        flight = self._flights.get(reply.id) if reply is not None else None
        if flight is None or reply is None:
            return []
        return self._object(flight, trouble) if trouble is not None else self._land(flight, reply)

    def _start(self, flight: Flight) -> Instructions:
        if isinstance(flight.order, m.Act):
            self._flights.add(msgspec.structs.replace(flight, leg=Leg.RECORDING))
            return self._write(s.Accepted(flight.order))
        self._flights.add(flight)
        return self._send_held()

    def _send_held(self) -> Instructions:
        if not self._is_open:
            return []
        held = self._flights.on(Leg.HELD, m.Act, m.Checkpoint, m.Pause, m.Resume)
        return [s.SendOrder(self._flights.move(flight, Leg.SENT).order) for flight in held]

    def _abandon(self, flight: Flight, objection: Objection) -> Instructions:
        if flight.is_restored and not flight.clients:
            self._flights.land(flight)
            return []
        return self._reject(flight, objection)

    def _interrupt(self, flight: Flight, objection: Objection) -> Instructions:
        """Not remembered: the next daemon has the outcome, under the same id."""
        assert self._watched is not None, "what is on trial is watched"
        told = objections.trial_interrupted(self._watched.applied.revision, objection)
        self._flights.land(flight)
        return self._answers.give(flight.clients, replies.refusal(self._view, flight.id, told))

    def _reject(self, flight: Flight, objection: Objection) -> Instructions:
        self._flights.move(flight, Leg.CLOSING)
        return self._write(s.Rejected(replies.refusal(self._view, flight.id, objection)))

    def _done(self, flight: Flight, result: dict[str, Any]) -> Instructions:
        return self._land(flight, replies.done(self._view, flight.id, result))

    def _object(self, flight: Flight, objection: Objection) -> Instructions:
        return self._land(flight, replies.refusal(self._view, flight.id, objection))

    def _land(self, flight: Flight, reply: Reply) -> Instructions:
        self._flights.land(flight)
        return self._answers.give(flight.clients, reply, flight.command)

    def _join(self, flight: Flight, asked: s.Requested) -> Instructions:
        if flight.command is not None and flight.command != asked.request.command:
            return self.refuse(asked, objections.other_request(flight.id))
        self._flights.join(flight, asked.client, asked.request.command)
        return []

    def _write(self, entry: s.Entry) -> Instructions:
        self._writing += 1
        return [s.Record(entry)]
