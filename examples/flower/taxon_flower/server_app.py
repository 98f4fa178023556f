"""Whoever fuses: Flower moves the weights, Taxon's checks say which of them count."""

import tempfile
from collections.abc import Iterable
from logging import INFO, WARNING
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from taxon.training.errors import TrainingError
from taxon.training.participants import fusing, gain
from taxon.training.participants.gain import HeldOut
from taxon.training.runs.checkpoint import Checkpoint
from taxon_flower.records import to_checkpoint

app = ServerApp()


class CheckedFedAvg(FedAvg):
    """FedAvg, as `taxon fuse --contributions` does it, each round written to `out`. The first waits for `participants`,
    later ones for `fewest`: who leaves does not hold up the others.
    """

    def __init__(self, base: Checkpoint, samples: HeldOut | None, out: Path, participants: int, fewest: int) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=participants, min_available_nodes=participants)
        self.base, self.samples, self.out, self.fewest = base, samples, out, fewest
        self.rounds_fused = 0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        messages = super().configure_train(server_round, arrays, config, grid)
        self.min_train_nodes = self.min_available_nodes = self.fewest
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        # Flower's own check compares the replies with each other: one odd reply would end the round for all.
        valid, _ = self._check_and_log_replies(replies, is_train=True, validate=False)
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for message in valid:
                file = Path(folder, f"node-{message.metadata.src_node_id}.pt")
                try:
                    to_checkpoint(message.content, self.base).save(file)
                except ValueError as error:
                    log(WARNING, "%s is refused: %s", file.name, error)
                else:
                    files.append(str(file))
            try:
                fused = fusing.fuse(self.base, files, samples=self.samples)
            except TrainingError as error:
                log(WARNING, "round %s changes nothing: %s", server_round, error)
                return ArrayRecord(dict(self.base.state)), None
        for file, reason in fused.refused:
            log(WARNING, "%s is refused: %s", Path(file).name, reason)
        log(INFO, "round %s: the average of %s, accuracy %s", server_round, len(fused.kept), fused.accuracy)
        self.base = fused.checkpoint
        self.base.save(self.out)
        self.rounds_fused += 1
        return ArrayRecord(dict(self.base.state)), MetricRecord({"kept": len(fused.kept)})


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    base = Checkpoint.load(Path(str(config["base"])))
    samples = gain.held_out(Path(str(config["held-out"])), base) if config["held-out"] else None
    out = Path(str(config["out"]))
    strategy = CheckedFedAvg(base, samples, out, int(config["participants"]), int(config["fewest"]))
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(dict(base.state)),
        num_rounds=int(config["rounds"]),
        timeout=float(config["timeout"]),
    )
    if not strategy.rounds_fused:
        raise RuntimeError(f"no round had a contribution that could be used: {out} is not written")
