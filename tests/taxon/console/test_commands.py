"""What the command refuses before it opens a port."""

import socket

import pytest

from taxon.cli import main


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--runs", "nowhere"], "nowhere is not a folder"),
        (["--feedback", "nowhere"], "nowhere is not a folder"),
        (["--feedback", "postgresql://db/x"], "needs a place for pictures"),
        (["--feedback", ".", "--feedback-pictures", "s3://bucket"], "a folder holds its pictures itself"),
        (["--feedback-pictures", "s3://bucket"], "--feedback-pictures goes with --feedback"),
        (["--listen", "0.0.0.0:0"], "--host NAME"),
        (["--listen", "[::]:0"], "--host NAME"),
        (["--listen", "8600"], "not HOST:PORT"),
        (["--listen", "127.0.0.1:70000"], "not HOST:PORT"),
        (["--key-file", "nowhere"], "nowhere: No such file"),
        (["--tls-cert", "nowhere"], "go together"),
    ],
)
def test_what_cannot_be_is_said(words, told, capsys):
    assert main(["console", *words]) == 2
    assert told in capsys.readouterr().err


def test_a_key_is_not_sent_in_the_open(tmp_path, capsys):
    (tmp_path / "key").write_text("secret")
    assert main(["console", "--server", "example.com:1", "--key-file", str(tmp_path / "key")]) == 2
    assert "without TLS" in capsys.readouterr().err


def test_a_port_that_is_taken(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["console", "--listen", f"127.0.0.1:{taken.getsockname()[1]}"]) == 2
    assert "Address already in use" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["taxon", "//taxon"])
def test_a_root_path_begins_with_one_slash(path, capsys):
    with pytest.raises(SystemExit):
        main(["console", "--root-path", path])
    assert "one slash" in capsys.readouterr().err
