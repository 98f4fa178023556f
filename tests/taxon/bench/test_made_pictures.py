"""What `taxon bench` and `taxon tune` send."""

import pytest

from taxon.bench import made_pictures
from tests.fakes import COLORS, picture


def test_made_pictures_are_as_large_as_help_says():
    made = made_pictures.jpegs(4)
    assert all(90_000 < len(encoded) < 110_000 for encoded in made)


def test_a_file_that_is_no_picture_is_named(tmp_path):
    (tmp_path / "red.png").write_bytes(picture(COLORS["red"]))
    assert made_pictures.of(tmp_path)() == [picture(COLORS["red"])]
    (tmp_path / "bad.jpg").write_text("bad")
    with pytest.raises(ValueError, match=r"bad\.jpg is not a JPEG, PNG, WebP or GIF picture"):
        made_pictures.of(tmp_path)
