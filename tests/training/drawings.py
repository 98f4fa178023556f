"""Pictures with large shapes, and a folder of them with one of every fault."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image


def drawing(seed: int, side: int = 96) -> Image.Image:
    """A picture with large shapes, as photographs have: unlike noise, it survives resizing."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return small.resize((side, side), Image.Resampling.BICUBIC)


def write_faulty(root: Path) -> Path:
    """A labelled folder with train and val, and one of every fault that the data doctor knows."""
    for split, offset in (("train", 0), ("val", 500)):
        for index, label in enumerate(("cat", "dog")):
            (root / split / label).mkdir(parents=True)
            for number in range(12):
                drawing(1000 * index + offset + number).save(root / split / label / f"{number:02}.png")
    shutil.copy(root / "train" / "cat" / "00.png", root / "val" / "cat" / "same-in-val.png")
    shutil.copy(root / "train" / "cat" / "01.png", root / "train" / "dog" / "same-as-dog.png")
    shutil.copy(root / "train" / "cat" / "02.png", root / "train" / "cat" / "same-twice.png")
    drawing(3).resize((80, 80)).save(root / "val" / "cat" / "near-in-val.jpg", quality=60)
    drawing(4).save(root / "train" / "dog" / "near-as-dog.jpg", quality=50)
    drawing(5).point(lambda value: min(255, value + 6)).save(root / "train" / "cat" / "brighter.png")
    (root / "train" / "cat" / "empty.jpg").touch()
    (root / "train" / "cat" / "text.png").write_text("no picture")
    drawing(90).save(root / "train" / "cat" / "cut.jpg")
    whole = (root / "train" / "cat" / "cut.jpg").read_bytes()
    (root / "train" / "cat" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    turned = Image.Exif()
    turned[0x0112] = 6
    drawing(91).save(root / "train" / "dog" / "turned.jpg", exif=turned)
    drawing(92).convert("CMYK").save(root / "train" / "dog" / "ink.jpg")
    drawing(93, side=9).save(root / "train" / "dog" / "tiny.png")
    Image.new("RGB", (96, 96), "white").save(root / "train" / "dog" / "white.png")
    Image.new("RGB", (96, 96), "black").save(root / "val" / "dog" / "black.png")
    return root
