"""Which worker proves which model: one first, then the others, a few at a time; and what becomes of a model at whose
load workers die.

A graph can end the process that opens it. So a model that nobody has proved yet is given to a worker without which
every other model is still served; if there is none, to one that is started for this alone. Whoever proves it chooses
its variant for all. A version that takes over the callers of another one waits until all who serve have it. Workers
that have models load beside their batches, so that callers hardly notice. Pure bookkeeping over slots.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import structlog

from taxon.service.workers.worker_protocol import Load, Loaded
from taxon.service.workers.worker_slot import WorkerSlot

# A worker may die for other reasons than the model that it loads; twice is no chance.
MOST_DEATHS = 2

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class Known:
    """A model that is being proved, or has been."""

    order: Load
    answer: "asyncio.Future[Loaded]"
    """Set once it may be served and a worker has it, or once it is refused."""
    takes_over: Callable[[], bool]
    """Whether callers whom another version answers now will be its own from the moment it is answered."""
    proven: Loaded | None = None
    deaths: int = 0
    apart: bool = False
    """Whether a worker that loads it must have nothing else to do: one has died of this or of a batch beside it, or has
    found no time.
    """
    withheld: str = ""
    """Why no further worker gets it."""

    @property
    def label(self) -> dict[str, object]:
        """For the log."""
        return {"model": self.order.name, "version": self.order.version}


class Loads:
    """Every model that workers have, or shall have."""

    def __init__(self, start_extra: Callable[[], WorkerSlot | None], on_lost: Callable[[Known, str], None]) -> None:
        """Knows no model.

        Args:
            start_extra: Starts a worker for proofs alone; None if that is impossible now.
            on_lost: Told of a model that was served and can be no more, and why.
        """
        self._start_extra = start_extra
        self._on_lost = on_lost
        self._known: dict[int, Known] = {}

    def add(self, order: Load, takes_over: Callable[[], bool] = lambda: False) -> "asyncio.Future[Loaded]":
        """Takes on a model; the future has the answer. Call `orders` then.

        Args:
            order: Of the model.
            takes_over: See `Known`.
        """
        answer: asyncio.Future[Loaded] = asyncio.get_running_loop().create_future()
        self._known[order.model] = Known(order, answer, takes_over)
        return answer

    def remove(self, model: int) -> None:
        """Forgets a model."""
        known = self._known.pop(model, None)
        if known:
            known.answer.cancel()

    def orders(self, slots: Iterable[WorkerSlot]) -> Iterator[tuple[WorkerSlot, Load]]:
        """What workers should load now; each is taken to be doing so then."""
        runners = [slot for slot in slots if slot.role != "decode"]
        for known in list(self._known.values()):
            if known.proven is None and all(slot.loading != known.order.model for slot in runners):
                slot = self._prover(runners)
                if slot is None:
                    continue
                if slot not in runners:
                    runners.append(slot)
                yield self._order(slot, known)
        regular = [slot for slot in runners if slot.runs]
        most = max(1, len(regular) // 2)
        for slot in regular:
            busy = sum(slot.loading is not None for slot in regular)
            if slot.loading is not None or (slot.models and busy >= most):
                continue
            for known in self._known.values():
                model = known.order.model
                if known.proven and not known.withheld and model not in slot.models and model not in slot.refused:
                    yield self._order(slot, known)
                    break

    def _order(self, slot: WorkerSlot, known: Known) -> tuple[WorkerSlot, Load]:
        slot.loading = known.order.model
        slot.beside = (bool(slot.models) or slot.extra) and not known.apart
        return slot, known.order._replace(gently=slot.beside)

    def _prover(self, runners: list[WorkerSlot]) -> WorkerSlot | None:
        """A worker that may die without any model being missed: others have all its models. Who loads does not count,
        since it may die of that.
        """
        free = [slot for slot in runners if slot.loading is None]
        replaceable = [
            slot
            for slot in free
            if all(any(model in other.models for other in free if other is not slot) for model in slot.models)
        ]
        if replaceable:
            return min(replaceable, key=lambda slot: (slot.extra, len(slot.models)))
        if len(free) < len(runners) or any(slot.extra for slot in runners) or not runners:
            return None  # one will be free soon
        return self._start_extra()

    def loaded(self, slot: WorkerSlot, message: Loaded) -> None:
        """Takes a worker's answer."""
        slot.loading, slot.trying = None, ""
        known = self._known.get(message.model)
        if known is None:
            return  # unloaded meanwhile
        if message.refused:
            if known.proven is None:
                self._refuse(known, message.refused)
                return
            log.error("a worker refuses what another proved", worker=slot.number, **known.label, reason=message.refused)
            slot.refused[known.order.model] = message.refused
            return
        known.deaths = 0
        slot.models.add(message.model)
        if known.proven is None:
            known.proven = message
            if message.description is not None:
                known.order = known.order._replace(variant=message.description.variant)

    def died(self, slot: WorkerSlot, status: int, of_its_work: bool = True) -> None:
        """Counts the death of a worker, if it died while loading: not over a batch, and not if somebody killed it while
        it loaded what has been proved. Such a model is loaded again for ever, as workers are. Where it may have been
        either, or batches left the load too little time, the model is loaded apart from them next time.
        """
        known = None if slot.loading is None else self._known.get(slot.loading)
        if known is None or (known.proven and not (of_its_work or slot.hangs)):
            return
        if slot.beside and (slot.batches or slot.hangs in ("a load", "a wait for idle time")):
            known.apart = True
            return
        if slot.batches and slot.hangs != "a load":
            return
        if slot.trying:
            reason = f"the process that tried it ended with status {status}; see the log"
            log.error("variant is not tried again", variant=slot.trying, **known.label, reason=reason)
            known.order = known.order._replace(without={**known.order.without, slot.trying: reason})
            return
        known.deaths += 1
        if known.deaths < MOST_DEATHS:
            return
        reason = f"the process that loads it ended twice, the last time with status {status}; see the log"
        if known.proven is None:
            self._refuse(known, reason)
        else:
            known.withheld = reason
            log.error("no further worker gets this model", **known.label, reason=reason)

    def settle(self, slots: Iterable[WorkerSlot], worker_count: int) -> None:
        """Says of models that they may be asked, and gives up those that no worker has and none will have.

        Args:
            slots: Of all workers that live.
            worker_count: Which shall run models; those that do not live will be replaced.
        """
        regular = [slot for slot in slots if slot.runs]
        for known in self._known.values():
            if known.proven and not known.answer.done() and self._is_ready(known, regular):
                known.answer.set_result(known.proven)
        for model, known in list(self._known.items()):
            if known.proven is None or any(model in slot.models or slot.loading == model for slot in regular):
                continue
            reasons = [slot.refused[model] for slot in regular if model in slot.refused]
            reason = known.withheld or (reasons[0] if reasons and len(reasons) == worker_count else "")
            if reason:
                was_served = known.answer.done()
                self._refuse(known, reason)
                if was_served:
                    self._on_lost(known, reason)

    def _is_ready(self, known: Known, regular: Sequence[WorkerSlot]) -> bool:
        """Whether a worker has it; of a version that takes over another one's callers, all at the same time, whether
        every worker has it that serves.
        """
        model = known.order.model
        if all(model not in slot.models for slot in regular):
            return False
        if known.withheld or not known.takes_over():
            return True
        return all(model in slot.models or model in slot.refused for slot in regular if slot.serves)

    def _refuse(self, known: Known, reason: str) -> None:
        del self._known[known.order.model]
        if not known.answer.done():
            known.answer.set_result(Loaded(known.order.model, reason))
