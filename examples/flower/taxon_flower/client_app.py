"""A participant: Taxon's recipe on pictures that stay here. The data and the recipe are the participant's own words
(`--node-config`), not the server's.
"""

import tempfile
from pathlib import Path

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from taxon.training.commands.train import main as taxon_train
from taxon.training.runs.checkpoint import Checkpoint
from taxon_flower.records import to_records

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    data, recipe = str(context.node_config["data"]), str(context.node_config["recipe"])
    with tempfile.TemporaryDirectory() as folder:
        weights, run = Path(folder, "round.pt"), Path(folder, "run")
        torch.save(message.content["arrays"].to_torch_state_dict(), weights)
        if (
            taxon_train(
                ["--recipe", recipe, "--data", data, "--weights", str(weights), "--out", str(run), "--no-report"]
            )
            != 0
        ):
            raise RuntimeError("the training failed: see the line above")
        return Message(content=to_records(Checkpoint.load(run / "best.pt")), reply_to=message)
