"""From a candidate to a graph that has passed: the ladder of exporters, each result put through the parity check."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from taxon.training.exporting import divergence, graph, maps, parity
from taxon.training.exporting.candidate import Candidate, ExportError, target_matrix
from taxon.training.exporting.divergence import NodeDifference
from taxon.training.exporting.graph import GraphError, Scored, Strategy
from taxon.training.exporting.mapped import Mapped
from taxon.training.exporting.parity import Parity, ParityError

WriteGraph = Callable[[nn.Module, tuple[int, ...], Path, Strategy], None]
DIAGNOSED_PICTURES = 2


@dataclass(frozen=True, slots=True)
class Attempt:
    """A strategy that did not pass."""

    strategy: str
    reason: str
    nodes: tuple[NodeDifference, ...] = ()
    """Every value that torch and the graph both name; empty where none could be compared."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A graph that answers as torch does."""

    strategy: Strategy
    attempts: tuple[Attempt, ...]
    """What failed before `strategy`."""
    parities: tuple[Parity, ...]


class GateError(ExportError):
    """No strategy passed."""

    def __init__(self, attempts: Sequence[Attempt]) -> None:
        reasons = " | ".join(f"{attempt.strategy}: {attempt.reason}" for attempt in attempts)
        super().__init__(f"nothing was published: no exported graph answers as torch does. {reasons}")
        self.attempts = tuple(attempts)


def climb(
    candidate: Candidate,
    served: Scored,
    reference: NDArray[np.float32],
    contract: dict[str, str],
    path: Path,
    *,
    ladder: Sequence[Strategy] = graph.LADDER,
    tolerance: float | None = None,
    write_graph: WriteGraph = graph.write_graph,
) -> Passed:
    """Tries the strategies in turn until one passes on every provider; its graph is then at `path`.

    Args:
        candidate: Whose pictures are used.
        served: What to export.
        reference: What torch answers, as `parity.rows_of` gives it.
        contract: The manifest's, written into the graph.
        path: Where the graph is written.
        ladder: The strategies.
        tolerance: Largest score difference on every provider; each provider's own by default.
        write_graph: The exporter.

    Raises:
        GateError: None passed.
    """
    attempts: list[Attempt] = []
    for strategy in ladder:
        try:
            write_graph(served, candidate.input.shape, path, strategy)
            graph.tidy(path, contract)
            mapped = served.network if isinstance(served.network, Mapped) else None
            parities = check(path, candidate, reference, tolerance, mapped)
        except (GraphError, ParityError) as error:
            attempts.append(Attempt(strategy.name, str(error)))
            continue
        faults = [f"{result.provider}: {fault}" for result in parities for fault in result.faults]
        if not faults:
            return Passed(strategy, tuple(attempts), tuple(parities))
        attempts.append(_diagnosed(strategy, "; ".join(faults), served, path, candidate))
    raise GateError(attempts)


def check(
    path: Path,
    candidate: Candidate,
    reference: NDArray[np.float32],
    tolerance: float | None = None,
    mapped: Mapped | None = None,
) -> list[Parity]:
    """Runs a graph over the whole validation set on every provider of this machine, the CPU last.

    The labels are read back from the graph, so that a lost order shows in the accuracy.

    Raises:
        ParityError: The graph does not run or gives another number of scores, or a file cannot be read.
    """
    written = json.loads(graph.metadata(path)["taxon.labels"])
    targets = (target_matrix(candidate.answers, candidate.labels), target_matrix(candidate.answers, written))
    results = []
    for provider in parity.providers():
        scores = parity.graph_rows(parity.open_session(path, provider), candidate.files, candidate.pixels)
        result = parity.compare(provider, candidate.files, reference, scores, candidate.task, targets, tolerance)
        results.append(_with_maps(result, path, candidate, mapped) if mapped else result)
    return results


def _with_maps(result: Parity, path: Path, candidate: Candidate, mapped: Mapped) -> Parity:
    difference = maps.largest_difference(path, result.provider, candidate, mapped)
    fault = f"maps differ by {difference:.1e} of their range, {result.tolerance:.0e} is allowed"
    faults = result.faults if difference <= result.tolerance else (*result.faults, fault)
    return replace(result, max_map_difference=difference, faults=faults)


def _diagnosed(strategy: Strategy, reason: str, served: Scored, path: Path, candidate: Candidate) -> Attempt:
    """The failed attempt with the place where the graph parts from torch, where that can be told."""
    if strategy.exporter != "dynamo":
        return Attempt(strategy.name, reason)
    sizes = (DIAGNOSED_PICTURES,)
    _, pictures = next(parity.decoded_batches(candidate.files, candidate.pixels, sizes))
    try:
        nodes = tuple(divergence.differences(served, path, pictures))
    except Exception as error:  # noqa: BLE001 - a diagnosis that fails must not hide what it was for
        return Attempt(strategy.name, f"{reason}; the nodes cannot be compared ({type(error).__name__})")
    parting = divergence.first_parting(nodes)
    if parting is None:
        return Attempt(strategy.name, f"{reason}; every compared node agrees", nodes)
    place = f"they part at {parting.name} ({parting.operator}), by {parting.relative_difference:.1e} of its range"
    return Attempt(strategy.name, f"{reason}; {place}", nodes)
