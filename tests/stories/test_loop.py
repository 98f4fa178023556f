"""The loop closes: a first version answers, people say what they think of its answers, and the next version is better.

On the handwritten digits; with TAXON_LOOP_DATA on a folder with `train` and `test`, such as CIFAR-10's: `make loop`.
"""

import json
import os
import random
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from taxon.client import Client, feedback_request
from taxon.feedback import review
from taxon.feedback.store import Store
from taxon.training.dataset.digits import write_digits
from tests import commands
from tests.commands import serving

pytestmark = pytest.mark.slow
GIVEN = os.environ.get("TAXON_LOOP_DATA", "")
STARTS_WITH = 0.3
"""Share of the training pictures that the first version learns from."""
SPOKEN_OF = 5_000 if GIVEN else 430
SPOILT = 10_000 if GIVEN else 200
"""Pictures of which somebody says the same wrong thing."""
PEOPLE = {"ann": 0.02, "bob": 0.02, "cem": 0.02, "dee": 0.02, "mallory": 0.42}
"""How often each is wrong: one in ten of all that is said."""
SECOND_OPINIONS = 0.3
BF16 = "avx512_bf16" in Path("/proc/cpuinfo").read_text()
"""Whether this CPU multiplies so; where it does not, that is emulated and much slower than fp32."""
GIVEN_RECIPE = (
    "--recipe cifar10_fast --model airbench --epochs 3 --ema 0.98 --set optim.warmup_epochs=1 "
    f"--set optim.evaluate_every=1 --set data.validate_on=val --precision {'bf16' if BF16 else 'fp32'}"
)
TRAIN = (GIVEN_RECIPE if GIVEN else "--recipe digits").split()
ROUND = ["--epochs", 2 if GIVEN else 60]
THREADS = int(os.environ.get("OMP_NUM_THREADS") or (len(os.sched_getaffinity(0)) if GIVEN else 1))
"""More than one costs small pictures, and a busy machine, more than it gives."""
PATIENCE_S = 1800
"""For a call: the machine may be asleep meanwhile."""
BEGAN_S = time.monotonic()
taxon = partial(commands.taxon, timeout_s=4 * 3600, env=os.environ | {"OMP_NUM_THREADS": str(THREADS)})


def told(what):
    print(f"{time.monotonic() - BEGAN_S:.0f} s: {what}", flush=True)  # noqa: T201 - figures for people, by `make loop`


def labelled(folder):
    return sorted((path, path.parent.name) for path in folder.rglob("*.*") if path.is_file())


def laid_out(folder):
    """A first third to train on, what the server will be asked about, what will be spoilt; all (file, label)."""
    source = Path(GIVEN) if GIVEN else write_digits(folder / "digits")
    draw = random.Random(0)
    if GIVEN:
        files, judging = ([*labelled(source / split)] for split in ("train", "test"))
        draw.shuffle(files)
    else:  # half of them judge: so few pictures of a split that they have would not show a gain
        files = [*labelled(source / "train"), *labelled(source / "val")]
        draw.shuffle(files)
        files, judging = files[: len(files) // 2], files[len(files) // 2 :]
    first = round(STARTS_WITH * len(files))
    for split, part in (("train", files[:first]), ("test", judging)):
        for path, label in part:
            target = folder / "data" / split / label / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path.resolve())
    return files[first : first + SPOKEN_OF], files[first + SPOKEN_OF : first + SPOKEN_OF + SPOILT]


def speak(client, asked, labels):
    """Every picture is answered, and one or two people say what it shows. Returns the truth by request_id."""
    draw, truth, names = random.Random(1), {}, [*PEOPLE]
    counts = Counter()
    for number, (path, label) in enumerate(asked):
        answer = client.classify(path)
        truth[answer.request_id] = label
        counts["right"] += answer.classifications[0].label == label
        people = [names[number % len(names)]]
        if draw.random() < SECOND_OPINIONS:
            people.append(draw.choice([name for name in names if name not in people]))
        for who in people:
            wrong = draw.random() < PEOPLE[who]
            said = draw.choice([other for other in labels if other != label]) if wrong else label
            counts["said"] += 1
            counts["wrong"] += wrong
            client.submit_feedback(feedback_request([said], contributor=who, request_id=answer.request_id))
    return truth, counts


def found(store, truth):
    """(precision, recall, set aside, wrong): pictures that the rules did not accept, and what people say wrongly."""
    cases = [case for case in review.cases(store, pending=False) if case.answer.request_id in truth]
    wrong = {case.picture for case in cases if case.said[0][0] != (truth[case.answer.request_id],)}
    flagged = {case.picture for case in cases if case.decision is None or case.decision.verdict != "accept"}
    hits = len(wrong & flagged)
    return hits / max(1, len(flagged)), hits / max(1, len(wrong)), len(flagged), len(wrong)


def test_the_loop_closes(tmp_path):
    asked, spoilt = laid_out(tmp_path)
    runs, models, store = tmp_path / "runs", tmp_path / "models", tmp_path / "store"
    name, machine = "loop", ["--cache-folder", tmp_path / "cache", "--threads", THREADS]
    taxon("train", *TRAIN, "--data", tmp_path / "data", "--out", runs / "first", *machine)
    taxon("export", runs / "first", "--models", models, "--name", name)
    taxon("promote", name, 1, "--models", models, "--run", runs / "first")
    told("version 1 is trained, exported and promoted")
    order = ["round", name, "--models", models, "--store", store, "--runs", runs, "--data", tmp_path / "versions"]
    order += ["--rounds", tmp_path / "rounds", "--json", *ROUND]
    order += ["--set", f"machine.cache_folder={tmp_path / 'cache'}", "--set", f"machine.threads={THREADS}"]
    flags = ["--feedback", store, "--feedback-max-per-hour", 10**6, "--watch-seconds", 1, "--device", "cpu"]
    flags += ["--max-call-seconds", PATIENCE_S]
    with (
        (tmp_path / "serve.log").open("wb") as log,
        serving(models, *flags, stderr=log) as (process, server),
        Client(server, timeout_s=PATIENCE_S) as client,
    ):
        labels = [*client.get_model().labels]
        truth, counts = speak(client, asked, labels)
        told(f"version 1 is right on {counts['right'] / len(asked):.2%} of the {len(asked)} pictures that it was asked")
        told(f"{counts['said']} times somebody says something, {counts['wrong'] / counts['said']:.1%} are wrong")

        started = time.monotonic()
        done = taxon(*order, "--accept-below", 0.5, "--reject-from", 0.5)
        state = json.loads(done.stdout.splitlines()[-1])
        kept = Store(store)
        precision, recall, flagged, wrong = found(kept, truth)
        told(f"rules set {flagged} pictures aside, {wrong} are wrong: precision {precision:.2f}, recall {recall:.2f}")
        mallory = kept.pseudonyms.of("mallory")
        others = [share for who, share in state["reliability"].items() if who != mallory]
        told(
            f"reliability of the malicious one {state['reliability'][mallory]:.2f}, of others {min(others):.2f} or more"
        )
        told(f"data: {state['counts']}")
        held_out = state["verdict"]["held_out"]
        told(f"round 1 in {time.monotonic() - started:.0f} s, on the held-out pictures:")
        told({key: value for key, value in held_out.items() if not key.startswith(("latency", "regressions"))})
        assert min(state["reliability"], key=state["reliability"].get) == mallory
        assert recall > 0.7
        assert precision > 0.5
        assert (state["outcome"], state["version"]) == ("promoted", 2)
        assert held_out["interval"][0] > 0
        assert held_out["p_value"] < 0.05
        until = time.monotonic() + 30
        while (answer := client.classify(asked[0][0])).model_version != "2":
            assert time.monotonic() < until
            time.sleep(0.2)
        assert process.poll() is None
        told("version 2 answers, by the same process")

        wrong_label = dict(zip(labels, [*labels[1:], labels[0]], strict=True))
        for path, label in spoilt:
            answer = client.classify(path)
            said = feedback_request([wrong_label[label]], contributor="eve", request_id=answer.request_id)
            client.submit_feedback(said)
        done = taxon(*order, "--accept-agreed", 1, "--no-suspects", code=1)
        state = json.loads(done.stdout.splitlines()[-1])
        told(f"round 2, on {len(spoilt)} wrong labels that were believed: {state['outcome']}, {state['reasons'][0]}")
        assert state["outcome"] == "refused"
        assert client.classify(asked[0][0]).model_version == "2"
        nothing = json.loads(taxon(*order, "--no-suspects").stdout.splitlines()[-1])
        assert (nothing["outcome"], nothing["reasons"]) == ("nothing", ["nothing new since round 2, which was refused"])

        seen_in = ["--runs", runs, "--runs", tmp_path / "rounds", "--models", models]
        gone = json.loads(taxon("feedback", "forget", "mallory", "--store", store, *seen_in).stdout)
        told(f"mallory leaves: {gone['rows']} rows, {gone['pictures']} pictures, seen by {gone['versions']}")
        assert gone["versions"] == [f"{name}/2"]
        assert gone["missing_exports"] == []
        assert mallory not in {one.contributor for one in kept.said()}
        for file in [*tmp_path.glob("versions/*/*.csv")]:
            assert mallory not in file.read_text()
        left = {one.picture for one in kept.said()}
        said_files = {path.stem for path in tmp_path.glob("versions/*/said/*")}
        assert said_files <= left
        kept.close()
