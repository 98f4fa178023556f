"""The recipe: every option of a training, checked once, here.

A recipe is a TOML file of the sections below; flags and `--set section.key=value` go over it. Unknown keys are
refused. Knows names, ranges and defaults; what they do is said by the modules that take the numbers.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1, le=2**20)]
"""More is a slip."""
Rate = Annotated[float, Field(gt=0.0, le=1e6)]
Strength = Annotated[float, Field(ge=0.0, le=1e6)]
Task = Literal["single_label", "multi_label"]
"""Whether a sample has one label, or any number."""
AutoTask = Literal["auto", "single_label", "multi_label"]
Mode = Literal["auto", "head", "last-n", "full", "scratch", "hybrid", "lp-ft"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataOptions(_Section):
    """What to learn from."""

    source: str = Field(
        "digits",
        description="labelled folder; CSV file; Parquet file or folder of them, with #COLUMN behind it if several hold "
        "labels (extra `parquet`); cifar10:, cifar100:, mnist: or fashionmnist:FOLDER; or `digits`, the handwritten "
        "digits of scikit-learn",
    )
    digits_folder: Path = Field(Path("digits"), description="where `digits` is written as a labelled folder")
    prepared_folder: Path = Field(
        Path("prepared"),
        description="where pictures of other formats are written as files",
    )
    task: AutoTask = Field(
        "auto", description="several labels per picture, or one; auto: several if a CSV file separates some by |"
    )
    download: bool = Field(False, description="allow the named data sets to be downloaded")
    val_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.2, description="share of each class that validates, where the data has no validation split"
    )
    split_seed: Seed = Field(0, description="another number gives another split")
    validate_on: Literal["val", "test", "train"] = Field(
        "val", description="`test`: train on train and val, and choose the best epoch on the test split, as published "
        "figures of CIFAR and MNIST do; `train`: leave the validation split alone for a last word, and choose on a "
        "share of the training split, as `taxon search` does"
    )  # fmt: skip
    image_size: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None, description="side of the pictures in pixels; by default what the weights were trained with, or for our "
        "own networks the commonest shorter side, at most 64"
    )  # fmt: skip
    color: Literal["rgb", "grayscale"] = Field("rgb", description="what the network sees")
    scaled_decoding: bool = Field(
        False, description="decode JPEG files of many megapixels at a half, a quarter or an eighth of their sides, in "
        "training and in the service: several times as fast, and slightly other pixels"
    )  # fmt: skip
    resampler: Literal["pillow", "simd"] = Field(
        "simd", description="whose arithmetic resizes pictures, in training and in the service: fast_image_resize's, "
        "the same bytes on every processor, or Pillow's, which weights from elsewhere were trained with and which "
        "takes several times as long"
    )  # fmt: skip


class ModelOptions(_Section):
    """What learns."""

    name: str = Field(
        "resnet50",
        description="torchvision classification model, timm/ and a name of timm's, or small_cnn, cnn2, cnn3, resnet9, "
        "resnet9_narrow, airbench, airbench_mirrored, airbench_wide, mlp",
    )
    weights: str = Field(
        "auto",
        description="torchvision weights name, a .pth, .pt or .safetensors file, or `none`; auto: torchvision's best, "
        "and none for our own networks",
    )
    head: str = Field("linear", description="last layer: `linear`, or `mlp:HIDDEN` after the convolutions")
    dropout: Fraction | None = Field(None, description="rate of every dropout layer; by default the network's own")
    mode: Mode = Field(
        "auto",
        description="what trains: the head, the last N stages and the head, everything, everything from random "
        "weights, chosen stages (hybrid), or first the head and then everything (lp-ft); auto: lp-ft with weights, "
        "else scratch",
    )
    features: Literal["cached", "live"] = Field(
        "cached", description="when only the head trains: compute what reaches it once, from unvaried pictures, or "
        "anew for each varied picture"
    )  # fmt: skip
    freeze_bn: bool = Field(
        False, description="batch normalisation keeps the statistics of the weights while its scale and shift train; "
        "stages that are reset take their own"
    )  # fmt: skip
    last: Count = Field(1, description="mode last-n: number of stages that train beside the head")
    reset: tuple[str, ...] = Field((), description="mode hybrid: stages that start from random weights and train")
    frozen: tuple[str, ...] = Field((), description="mode hybrid: stages that keep their weights")


class OptimOptions(_Section):
    """How it learns."""

    epochs: Count = Field(10, description="passes over the training data, those of the head included")
    head_epochs: Count | None = Field(None, description="mode lp-ft: epochs of the head alone; by default half of them")
    batch_size: Count = Field(32, description="samples per update, over all processes")
    accumulate: Count = Field(1, description="parts in which a batch is computed, to save memory")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("adamw", description="SGD has Nesterov momentum")
    lr: Rate | None = Field(None, description="peak learning rate; by default from optimizer and mode")
    head_lr: Rate | None = Field(None, description="mode lp-ft: peak learning rate of the head's epochs")
    momentum: Fraction = Field(0.9, description="of SGD")
    weight_decay: Strength = Field(0.01, description="L2; not on biases and normalisation")
    l1: Strength = Field(0.0, description="weight of the sum of absolute weights in the loss")
    schedule: Literal["cosine", "step", "constant", "linear"] = Field("cosine", description="of the learning rate")
    step_epochs: Count = Field(10, description="schedule step: the rate falls tenfold every so many epochs")
    warmup_epochs: Strength = Field(1.0, description="linear rise of the rate at the start")
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0, description="factor of the learning rate from each stage to the one before it"
    )
    norm_bias_lr: Rate = Field(1.0, description="factor of the learning rate of the biases of normalisation layers")
    loss: Literal["auto", "cross_entropy", "bce", "mse"] = Field(
        "auto", description="auto: bce for multi-label, else cross_entropy; mse is on probabilities"
    )
    label_smoothing: Fraction = Field(0.0, description="share of the target spread over all classes")
    balance: Literal["none", "weights", "sampling"] = Field(
        "none", description="rare classes weigh more in the loss, or are drawn more often"
    )
    clip_norm: Rate | None = Field(None, description="largest norm of the gradient")
    ema: Fraction = Field(0.0, description="decay of the running average of the weights that is evaluated; 0: none")
    early_stop: Annotated[int, Field(ge=0, le=2**20)] = Field(
        0, description="stop after so many epochs without a better one; 0: never"
    )
    evaluate_every: Count = Field(
        1, description="epochs between evaluations; the last of a phase is always evaluated, and only an evaluated "
        "epoch can be the best"
    )  # fmt: skip


class AugmentOptions(_Section):
    """How training pictures vary; evaluation never varies."""

    flip: Probability = Field(0.5, description="probability of a left-right flip; at 0.5 every other epoch, by picture")
    pad: Annotated[int, Field(ge=0, le=4096)] = Field(
        0, description="random crop after so many pixels of reflection on each side"
    )
    scale: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0, description="random resized crop: smallest share of the area; 1: a crop of the evaluation's size"
    )
    policy: Literal["none", "randaugment", "trivialaugment"] = Field("none", description="colour and shape changes")
    erase: Probability = Field(0.0, description="probability of a random black rectangle")
    mixup: Strength = Field(0.0, description="alpha of mixup; 0: none")
    cutmix: Strength = Field(0.0, description="alpha of CutMix; with mixup, either at random; 0: none")


class DistillOptions(_Section):
    """Who teaches, beside the labels."""

    teacher: Path | None = Field(
        None,
        description="folder of a run with the same labels, whose scores are learned too; frozen, and sees every "
        "varied picture: features are live",
    )
    teacher_sha256: str | None = Field(
        None, description="of the teacher's best.pt: filled in, and another one is refused"
    )
    temperature: Annotated[float, Field(ge=0.01, le=1e3)] = Field(4.0, description="both scores are softened by it")
    weight: Probability = Field(0.9, description="share of the loss that is the teacher's; 1: the labels are not used")


class PrivacyOptions(_Section):
    """What weights may tell of a training picture (differential privacy, extra `privacy`)."""

    noise: Strength = Field(
        0.0, description="noise on the sum of a batch's gradients, in clipped norms; 0: no guarantee. Only for the "
        "head of frozen features; such a run cannot be resumed, and its validation pictures are not protected"
    )  # fmt: skip
    clip: Rate = Field(1.0, description="largest norm of the gradient of one sample")
    delta: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        1e-5, description="chance that the bound epsilon does not hold: well below one by the count of samples"
    )


class RunOptions(_Section):
    """What belongs to this run."""

    seed: Seed = Field(0, description="of weights, order, augmentation and dropout")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="of the forward pass (autocast)")
    channels_last: Literal["auto", "on", "off"] = Field("auto", description="memory layout; auto: for convolutions")
    compile: bool = Field(False, description="torch.compile")
    deterministic: bool = Field(False, description="on a GPU: only repeatable kernels; a CPU always repeats itself")
    tensorboard: bool = Field(False, description="write TensorBoard files into the run folder too")
    mlflow: bool = Field(False, description="send figures to MLflow too: MLFLOW_TRACKING_URI says where")
    report: bool = Field(True, description="write report/ at the end")


class MachineOptions(_Section):
    """What may differ from machine to machine without making it another recipe."""

    device: str = Field("auto", description="auto, cpu, cuda, or cuda:N")
    threads: Annotated[int, Field(ge=0, le=4096)] = Field(
        0, description="CPU threads of torch; 0: torch decides. Another number gives other last bits"
    )
    workers: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="loader processes; useful for heavy augmentation"
    )
    cache_folder: Path = Field(Path("runs/.cache"), description="decoded pictures and features")
    cache_gib: Strength = Field(16.0, description="decoded pictures are cached up to this size, in GiB")
    save_seconds: Annotated[float, Field(ge=0.0, le=1e9)] = Field(
        30.0, description="time between checkpoints, within epochs too; a killed run repeats what came after the last"
    )


class Recipe(_Section):
    """All options of a training."""

    data: DataOptions = DataOptions()
    model: ModelOptions = ModelOptions()
    optim: OptimOptions = OptimOptions()
    augment: AugmentOptions = AugmentOptions()
    distill: DistillOptions = DistillOptions()
    privacy: PrivacyOptions = PrivacyOptions()
    run: RunOptions = RunOptions()
    machine: MachineOptions = MachineOptions()
