"""Which part of a resized picture a crop keeps. Both sides follow torchvision's rounding."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a picture on its way to the crop, in pixels."""

    length: int
    """Of the picture."""
    target: int
    """Of the resized picture."""
    first: int
    """Of the resized picture: where the kept part begins."""
    count: int
    """Kept."""
    before: int
    """Black pixels in front of it, where the crop is larger than the resized picture."""

    @property
    def begin(self) -> float:
        """Where what becomes the kept part begins in the picture."""
        return self.first * self.length / self.target

    @property
    def extent(self) -> float:
        """How much of the picture becomes the kept part: exactly its length if all of it does."""
        return self.count * self.length / self.target

    @property
    def scale(self) -> float:
        """Pixels of the picture for each of the resized one."""
        return self.length / self.target


def resized_size(size: tuple[int, int], resize: int | tuple[int, int]) -> tuple[int, int]:
    """(width, height) of the resized picture.

    Args:
        size: (width, height) of the picture.
        resize: Length of the shorter side, or (height, width).
    """
    if isinstance(resize, tuple):
        return resize[1], resize[0]
    width, height = size
    if width <= height:
        return resize, int(resize * height / width)
    return int(resize * width / height), resize


def sides(size: tuple[int, int], resized: tuple[int, int], crop: tuple[int, int]) -> tuple[Side, Side]:
    """What becomes of width and height.

    Args:
        size: (width, height) of the picture.
        resized: (width, height) that it is resized to.
        crop: (height, width) that is kept of that, from the centre.
    """
    width, height = (_side(*lengths) for lengths in zip(size, resized, crop[::-1], strict=True))
    return width, height


def _side(length: int, target: int, crop: int) -> Side:
    if target >= crop:
        return Side(length, target, round((target - crop) / 2), crop, 0)
    return Side(length, target, 0, target, (crop - target) // 2)  # rounded otherwise, as torchvision's padding is
