"""What conversations order, carried out. Used by the reply thread alone.

Speech goes to the line, which asks the voices for it; requests go to io-vendors, tools and guards
to the workers, a hang-up to io-calls.
"""

from __future__ import annotations

from ..dialog import events as talk
from .jobs import Jobs
from .line import Line
from .messages import AskModel, CancelModel, HangUp
from .voices import Voices
from .wake import Outbox

GOODBYE_CAP_NS = 30_000_000_000  # after it was ordered, should the voice never speak it


class Orders:
    """See the module. `vendors`: to io-vendors, None without a model behind a socket."""

    def __init__(
        self, voices: Voices, jobs: Jobs, vendors: Outbox[object] | None, to_io: Outbox[object]
    ) -> None:
        self._voices = voices
        self._jobs = jobs
        self._vendors = vendors
        self._to_io = to_io

    def tell(self, line: Line, now: int) -> None:
        """Tell the conversation the facts that wait, and carry out what it orders.

        A fact that comes up meanwhile is told after the last order of those before it.
        """
        while line.facts:
            for order in line.context.run(line.conversation.handle, line.facts.popleft()):
                self.carry_out(line, order, now)
        self._voices.request(line, now)
        line.show()

    def carry_out(self, line: Line, order: talk.Output, now: int) -> None:
        """One order."""
        match order:
            case talk.Say():
                line.idle.agent_speaking()
                line.turns.said(order, now)
                line.say(order, self._jobs.guard(line, order, now))
            case talk.EndOfReply():
                line.end(order)
            case talk.Drop(_, clause):
                self._drop(line, clause, now)
            case talk.Ask():
                self._ask(line, order, now)
            case talk.CancelAsk(ask):
                assert self._vendors is not None, "a remote brain comes with io-vendors"
                self._vendors.put(CancelModel(line.call.slot, line.generation, ask))
            case talk.RunTool():
                line.idle.agent_speaking()
                self._jobs.run(line, order, now)
            case talk.HangUp(_, clause):
                line.hang_up = "the agent said goodbye"
                line.hang_up_after = clause
                line.hang_up_by = now + GOODBYE_CAP_NS
                if clause == 0:
                    self.hang_up(line)

    def _drop(self, line: Line, clause: int, now: int) -> None:
        gone, orders = line.drop(clause)
        for one in gone:
            line.turns.dropped(one.number)
            self._jobs.forget_one(line, one.guard)
        self._voices.tell(line, orders, now)

    def _ask(self, line: Line, order: talk.Ask, now: int) -> None:
        assert self._vendors is not None, "a remote brain comes with io-vendors"
        if not order.early:
            line.idle.agent_speaking()
        line.turns.ask(order, now)
        slot, generation = line.call.slot, line.generation
        self._vendors.put(
            AskModel(slot, generation, line.epoch, order.ask, order.messages, order.tools)
        )

    def hang_up(self, line: Line) -> None:
        """End the call, for the reason that the line has."""
        self._to_io.put(HangUp(line.call.slot, line.generation, line.hang_up))
        line.hang_up = ""
        line.hang_up_by = 0
