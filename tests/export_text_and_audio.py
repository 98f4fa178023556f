"""Exports a BERT-shaped text classifier and a 1-D convolutional audio classifier, with random weights, as ONNX files
without manifests.

    python -m tests.export_text_and_audio MODELS

They show that any ONNX classifier is served as tensors: int64 token ids with a mask, both axes free, and float audio
of any length. Beside each file lie an example input and what torch answers to it.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

TEXT_LABELS = ("negative", "neutral", "positive")
AUDIO_LABELS = ("clap", "knock", "siren", "speech")
VOCABULARY = 100
WIDTH = 32
MAX_TOKENS = 64


class TextClassifier(nn.Module):
    """Token ids and their mask, int64 `[batch, tokens]` → logits float32 `[batch, 3]`."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Parameter(torch.randn(MAX_TOKENS, WIDTH))
        self.queries, self.keys, self.values = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.norm = nn.LayerNorm(WIDTH)
        self.hidden = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
        self.head = nn.Linear(WIDTH, len(TEXT_LABELS))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """One layer of attention is enough for the shape of the thing."""
        states = self.tokens(input_ids) + self.positions[: input_ids.shape[1]]
        attention = self.queries(states) @ self.keys(states).transpose(1, 2) / WIDTH**0.5
        hidden_from = (attention_mask == 0).unsqueeze(1)
        weights = attention.masked_fill(hidden_from, -1e4).softmax(-1)
        states = self.norm(states + weights @ self.values(states))
        states = states + self.hidden(states)
        return self.head(states[:, 0])


class AudioClassifier(nn.Module):
    """Samples float32 `[batch, samples]` → scores float32 `[batch, 4]`."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(1, 8, 16, stride=8), nn.ReLU(), nn.Conv1d(8, 16, 8, stride=4), nn.ReLU())
        self.head = nn.Linear(16, len(AUDIO_LABELS))

    def forward(self, samples: Tensor) -> Tensor:
        """Means over time, so that any length will do."""
        return self.head(self.layers(samples.unsqueeze(1)).mean(2)).softmax(1)


def export(root: Path) -> None:
    """Writes `<root>/text/1/` and `<root>/audio/1/`."""
    torch.manual_seed(1)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", min=2, max=MAX_TOKENS)
    ids = torch.randint(0, VOCABULARY, (2, 12))
    mask = (torch.arange(12) < torch.tensor([[12], [7]])).long()
    _write(
        root / "text",
        TextClassifier(),
        {"input_ids": ids, "attention_mask": mask},
        {"input_ids": {0: batch, 1: length}, "attention_mask": {0: batch, 1: length}},
        ("logits", TEXT_LABELS),
    )
    samples = torch.randn(2, 4000)
    free = {"samples": {0: batch, 1: torch.export.Dim("length", min=256, max=160_000)}}
    _write(root / "audio", AudioClassifier(), {"samples": samples}, free, ("scores", AUDIO_LABELS))


def _write(
    folder: Path,
    model: nn.Module,
    inputs: dict[str, Tensor],
    dynamic_shapes: dict[str, dict[int, object]],
    output: tuple[str, tuple[str, ...]],
) -> None:
    model.eval()
    name, labels = output
    (folder / "1").mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            model,
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=[name],
            dynamic_shapes=dynamic_shapes,
            dynamo=True,
            verbose=False,
        )
    program.save(folder / "1" / "model.onnx", external_data=False)
    with torch.no_grad():
        answers = model(**inputs).numpy()
    example = {key: value.tolist() for key, value in inputs.items()} | {name: np.asarray(answers).tolist()}
    (folder / "example.json").write_text(json.dumps(example), encoding="utf-8")
    (folder / "labels.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
    (folder / "config.pbtxt").write_text(
        f'name: "{folder.name}"\nbackend: "onnxruntime"\nmax_batch_size: 64\n'
        f'output [{{ name: "{name}", data_type: TYPE_FP32, dims: [{len(labels)}], label_filename: "labels.txt" }}]\n',
        encoding="utf-8",
    )


if __name__ == "__main__":
    export(Path(sys.argv[1]))
