"""The recipe: data, network, loop, top to bottom.

Everything random is a function of (seed, epoch, step, sample), so a checkpoint holds no generator state, and a
run that was killed anywhere and started again ends with the same bits (on the CPU, with as many threads).
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from taxon.bundle import pixels
from taxon.training.config import Recipe
from taxon.training.errors import TrainingError
from taxon.training.loop import batch_statistics, features, optim, order
from taxon.training.loop.augment import Augmentation, mixing, normalised
from taxon.training.loop.batches import batches, cut, parts_of, smallest_part
from taxon.training.loop.distill import Teacher
from taxon.training.loop.evaluate import answer, summary
from taxon.training.loop.machine import choose_machine
from taxon.training.loop.prepare import find_data, prepare
from taxon.training.loop.privacy import private_steps
from taxon.training.loop.progress import Display
from taxon.training.loop.tracking import check_trackers, tracking
from taxon.training.network import model, networks, stages
from taxon.training.network.weights import restore
from taxon.training.plan import Position, check_parts, check_task, frozen_norms, phases, trainable_in
from taxon.training.runs.checkpoint import Checkpoint, run_behind
from taxon.training.runs.folder import Run, check_recipe, open_or_create

EVALUATION_FACTOR = 2
"""Evaluation keeps no gradients, so larger batches fit."""
PICTURES_DECORRELATED = 2000
"""Enough for the covariance of a few pixels."""
FILES_NAMED = 8
"""Of the batch whose loss was no number."""


def finetune(recipe: Recipe, folder: Path, goes_on: Callable[[Mapping[str, object]], bool] = lambda _: True) -> Run:
    """Trains as the recipe says, from the start or from where a stopped run left off.

    Args:
        recipe: Resolved, see `plan.resolved`.
        folder: Of the run; made if it is not there.
        goes_on: Asked after every evaluated epoch about its figures; a no stops the training, which can be resumed.

    Raises:
        TrainingError: The data, the model or the options do not allow it, or the loss is no longer a number.
    """
    seed, options, workers = recipe.run.seed, recipe.optim, recipe.machine.workers
    machine = choose_machine(
        recipe.machine.device, threads=recipe.machine.threads, deterministic=recipe.run.deterministic
    )

    # Whatever can fail cheaply fails before pictures are decoded. The first process goes ahead, the others find what it
    # has downloaded and written.
    with machine.first_alone():
        check_recipe(folder, recipe)
        check_trackers(recipe.run)
        found = find_data(recipe.data, recipe.model)
        labels, preprocessing, task = found.data.labels, found.preprocessing, found.data.task
        check_task(recipe, task)
        teacher = (
            Teacher(recipe.distill, labels, task, preprocessing, machine.device) if recipe.distill.teacher else None
        )
        torch.manual_seed(seed)
        loaded = model.load(
            recipe.model.name,
            len(labels),
            channels=len(preprocessing.mean),
            weights=None if recipe.model.weights == "none" else recipe.model.weights,
            head=recipe.model.head,
        )
        example = normalised(preprocessing.example(), preprocessing.mean, preprocessing.std)
        model.check_takes(loaded.network, example)
        check_parts(loaded, recipe, example, len(found.data.split("train")), machine.world)
        private_steps(recipe, folder, machine, preprocessing, len(found.data.split("train")))  # refuses before decoding

        # Data: decoded once.
        prepared = prepare(found, recipe.machine)
        check_parts(loaded, recipe, example, len(prepared.train), machine.world)  # fewer, if some could not be decoded
        private = private_steps(recipe, folder, machine, preprocessing, len(prepared.train))
        parents = (*run_behind(recipe.model.weights), *((teacher.run_id,) if teacher else ()))
        run = open_or_create(folder, prepared.data, recipe, parents)
    display = Display(Console() if machine.rank == 0 else None)
    display.introduce(run.folder, prepared.data)
    if machine.emulates(recipe.run.precision):
        display.say("this processor emulates bf16, many times slower than fp32: use --precision fp32")
    if preprocessing.pixels is not None and (reason := pixels.why_slow(preprocessing.pixels)):
        display.say(f"pictures are resized slowly, by NumPy: {reason}")

    if private:
        display.say(private.promise)

    # Network.
    network = loaded.network
    if loaded.dropped_head:
        display.say(f"left out of the weights, being of other classes: {', '.join(loaded.dropped_head)}")
    if recipe.model.dropout is not None:
        networks.set_dropout(network, recipe.model.dropout)
    parts = stages.stages(network, loaded.head)
    stages.reset_stages(parts, recipe.model.reset)
    frozen = frozen_norms(recipe.model, parts)
    network.to(machine.device)
    if recipe.run.channels_last != "off":
        network.to(memory_format=torch.channels_last)

    def to_network(pictures: Tensor) -> Tensor:
        return normalised(pictures.to(machine.device), preprocessing.mean, preprocessing.std)

    example = to_network(preprocessing.example())
    if isinstance(network, networks.Airbench) and recipe.model.weights == "none":
        some = order.permutation(seed, 0, len(prepared.train))[:PICTURES_DECORRELATED]
        network.decorrelate(to_network(torch.from_numpy(prepared.train.inputs[some])))

    # Loss, and what varies the pictures.
    loss_of = optim.loss_function(
        options.loss,
        task=task,
        smoothing=options.label_smoothing,
        class_weights=optim.class_weights(prepared.train.targets, len(labels)).to(machine.device)
        if options.balance == "weights"
        else None,
    )
    vary = mix = None
    if preprocessing.pixels is not None:
        vary = Augmentation(preprocessing.pixels.crop, **recipe.augment.model_dump(exclude={"mixup", "cutmix"}))
        mix = mixing(recipe.augment.mixup, recipe.augment.cutmix, len(labels))
    autocast = machine.autocast(recipe.run.precision)
    size = options.batch_size * EVALUATION_FACTOR
    asked = partial(answer, machine=machine, batch_size=size, autocast=autocast, workers=workers)

    # Where a stopped run left off; a new one is told whether its weights bear the statistics of batches.
    planned, position, kept = phases(recipe.model.mode, options), Position(), {}
    if run.last_path.exists():
        last = Checkpoint.load(run.last_path)
        restore(network, last.state)
        kept = dict(last.progress)
        position = Position(**kept["position"])
        display.say(f"going on after epoch {position.epochs_done}, step {position.step}")
    elif recipe.model.weights != "none":  # now, and not when the last phase begins, which finds the backbone as it is
        stages.train_mode(network, parts, trainable_in(planned[-1], parts, recipe.model), frozen)
        smallest = smallest_part(len(prepared.train), options.batch_size, options.accumulate, machine.world)
        fit = batch_statistics.fit(network, loaded.head, prepared.unvaried, to_network, smallest)
        if fit is not None and fit.breaks and machine.rank == 0:
            display.say(fit.warning)
            run.write_warnings([fit.warning])
    history = [line for line in run.metrics() if line["epoch"] <= position.epochs_done]
    best = run.checkpoint() if run.best_path.exists() else None
    blank = Checkpoint(
        model=recipe.model.name,
        head=recipe.model.head,
        labels=labels,
        task=task,
        pixels=preprocessing.pixels,
        mean=preprocessing.mean,
        std=preprocessing.std,
        state={},
        metrics={},
        epoch=0,
        run_id=run.id,
        features=preprocessing.features,
        sample_count=len(prepared.train),
        privacy=private.spent if private else {},
    )

    trackers = tracking(recipe.run, run, position.epochs_done, display.say) if machine.rank == 0 else []
    first_epoch = 0
    for phase in planned:
        last_epoch, begin = first_epoch + phase.epochs, max(first_epoch, position.epochs_done)
        if begin >= last_epoch:
            first_epoch = last_epoch
            continue

        # What trains in this phase: the network, or only its head, on features that are computed once.
        trainable = trainable_in(phase, parts, recipe.model)
        stages.freeze_all_but(network, parts, trainable)
        trainee, train, val = network, prepared.train, prepared.val
        to_input: Callable[[Tensor], Tensor] = to_network
        only_head = phase.mode == "head" and recipe.model.features == "cached"
        if only_head and features.cacheable(network, loaded.head, example):
            display.say(f"features of {len(train) + len(val)} pictures: computed once, or found in the cache")
            with machine.first_alone():
                train, val = features.of_splits(
                    network, loaded.head, prepared, to_network, options.batch_size, recipe.machine.cache_folder
                )
            trainee, to_input = network.get_submodule(loaded.head), machine.take
        update = optim.Update(
            optim.optimizer(
                options.optimizer,
                optim.parameter_groups(
                    parts, network, phase.lr, options.weight_decay, options.layer_decay, options.norm_bias_lr
                ),
                options.momentum,
            ),
            torch.amp.GradScaler(machine.device.type, enabled=recipe.run.precision == "fp16"),
            optim.running_average(trainee, options.ema) if options.ema else None,
            l1=options.l1,
            clip_norm=options.clip_norm,
        )
        if begin > first_epoch or position.step > 0:  # the checkpoint is of this phase
            update.load(kept["update"])
        forward = torch.compile(trainee) if recipe.run.compile else trainee
        if machine.world > 1:
            forward = DistributedDataParallel(forward)
        if private:
            if trainee is network:
                raise TrainingError(f"--dp-noise: the features of {recipe.model.name} cannot be computed once")
            update.optimizer, forward = private.noisy(update.optimizer), private.per_sample(trainee)

        def save(best: Checkpoint | None) -> None:
            if machine.rank == 0:
                progress = {"position": asdict(position), "update": update.state()}  # noqa: B023 - called in this round
                now = replace(blank, state=network.state_dict(), epoch=position.epochs_done, progress=progress)
                run.save(best, now)

        saved_at = time.monotonic()
        for epoch in range(begin, last_epoch):
            started, title = time.monotonic(), f"epoch {epoch + 1}/{options.epochs} {phase.mode}"
            stages.train_mode(network, parts, trainable, frozen)
            if trainee is network:
                train = prepared.in_epoch(epoch, vary, seed)
            samples = order.of_epoch(seed, epoch, train.targets, balanced=options.balance == "sampling")
            shares = cut(samples, options.batch_size, rank=machine.rank, world=machine.world)
            if private:
                shares = private.batches()
            steps = len(shares)
            display.epoch_begins(title, steps, position.step)

            for batch in batches(train, shares[position.step :], workers=workers):
                torch.manual_seed(order.step_seed(seed, epoch, position.step, machine.rank))
                update.set_lr(
                    optim.lr_factor(
                        (epoch - first_epoch) * steps + position.step,
                        phase.epochs * steps,
                        warmup_steps=round(options.warmup_epochs * steps),
                        schedule=options.schedule,
                        step_length=options.step_epochs * steps,
                    )
                )
                inputs, targets = to_input(batch.inputs), batch.targets.to(machine.device)
                if mix is not None and trainee is network:
                    inputs, targets = mix(inputs, targets)
                loss_value = 0.0
                for few, few_targets in zip(
                    parts_of(inputs, options.accumulate), parts_of(targets, options.accumulate), strict=True
                ):
                    with autocast:
                        logits = forward(few)
                    loss = loss_of(logits, few_targets)
                    if teacher:
                        loss = teacher.joins(loss, logits, few, autocast)
                    loss = loss * (len(few) / len(inputs))
                    update.backward(loss)
                    loss_value += loss.item()
                if not math.isfinite(loss_value):
                    files = [str(prepared.data.split("train")[n].path) for n in batch.samples[:FILES_NAMED]]
                    raise TrainingError(
                        f"the loss became {loss_value} in {title}, step {position.step + 1}, on a batch of "
                        f"{len(inputs)} with {', '.join(files)}: lower --lr; the last good checkpoint is kept"
                    )
                update.apply(trainee)
                position.step += 1
                position.loss_sum += loss_value
                display.step_done(loss_value)
                if time.monotonic() - saved_at >= recipe.machine.save_seconds:
                    save(best)
                    saved_at = time.monotonic()

            figures: dict[str, object] = {
                "epoch": epoch + 1,
                "phase": phase.mode,
                "train_loss": machine.mean(position.loss_sum / steps),
                "train_seconds": round(time.monotonic() - started, 3),
            }
            # The epoch's figures; of the averaged weights, if there are any.
            machine.share_buffers(trainee)
            evaluated, better = (epoch + 1) % options.evaluate_every == 0 or epoch + 1 == last_epoch, False
            if not evaluated:
                position.epoch_passes(epoch + 1)
            else:
                with update.averaged(trainee):
                    metrics = summary(asked(trainee, val, to_input))
                    if better := position.epoch_ends(epoch + 1, metrics["accuracy"], metrics["loss"]):
                        best = replace(blank, state=networks.state_on_cpu(network), metrics=metrics, epoch=epoch + 1)
                figures |= {"val_loss": metrics["loss"]} | {key: metrics[key] for key in ("accuracy", "macro_f1")}
            history.append({**figures, "seconds": round(time.monotonic() - started, 3)})
            position.step, position.loss_sum = 0, 0.0
            if machine.rank == 0:
                run.write_metrics(history)
                for tracker in trackers:
                    tracker.write(history[-1])
            display.epoch_done(title, history[-1], best=better)
            if evaluated and not goes_on(history[-1]):
                save(best)
                return run
            if evaluated and options.early_stop and position.stale_epochs >= options.early_stop:
                display.say(f"no better epoch among {options.early_stop}: {phase.mode} ends here")
                break
        position.phase_ends(last_epoch)
        save(best)
        first_epoch = last_epoch

    # The report is on the best weights.
    if recipe.run.report and best is not None and not (run.folder / "report" / "index.html").exists():
        restore(network, best.state)
        answers = asked(network, prepared.val, to_network)
        if machine.rank == 0:
            from taxon.training.reporting.report import write_report  # what draws takes its time to import

            write_report(run, answers)
    for tracker in trackers:
        tracker.end()
    if machine.rank == 0:
        display.finish(run.folder, run.checkpoint())
    return run
