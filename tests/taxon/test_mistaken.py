"""What errors say to people."""

from pathlib import Path

import pytest

from taxon.cli import main
from taxon.mistaken import in_words


def test_an_error_of_the_system_is_its_words_without_the_number():
    with pytest.raises(OSError, match="nowhere") as caught, Path("nowhere").open():
        pass
    assert in_words(caught.value) == "nowhere: No such file or directory"
    assert in_words(ConnectionRefusedError(111, "Connection refused")) == "Connection refused"
    assert in_words(FileNotFoundError("there is no picture")) == "there is no picture"
    assert in_words(ValueError("odd")) == "odd"


@pytest.mark.parametrize(
    "words",
    [
        ["models", "--models", "nowhere"],
        ["classify", ".", "--key-file", "nowhere"],
        ["health", "--tls-ca", "nowhere"],
        ["bench", "localhost:1", "--key-file", "nowhere"],
        ["traffic", "show", "pets", "--models", "nowhere"],
    ],
    ids=lambda words: words[0],
)
def test_commands_tell_people_which_file(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cat.jpg").touch()
    assert main(words) == 2
    assert "nowhere: No such file or directory" in capsys.readouterr().err
