"""A reviewer decides on a page what `taxon feedback review` decides in a terminal."""

import html
import re

import pytest

from taxon.feedback.opening import Shared
from taxon.feedback.records import Answer, Entry, Said
from taxon.feedback.sealing import Seal
from taxon.feedback.store import Store
from tests.fakes import COLORS, picture
from tests.postgres import running


def entry(label: str, color: str = "green", contributor: str = "jane") -> Entry:
    answer = Answer(f"{color}-{contributor}", "colors", 1, "fp32", ("green",), 0.9, False, None)
    return Entry(
        picture(COLORS[color]), answer, "feedback", Said(contributor, (label,), (), "train", "", "<b>note</b>")
    )


@pytest.fixture
def store(tmp_path):
    with_two = Store(tmp_path / "feedback")
    with_two.add([entry("green"), entry("red", "blue")])
    yield with_two
    with_two.close()


def fields(page: str) -> dict[str, str]:
    form = page[page.index("/feedback/decide") :]
    return {name: html.unescape(value) for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', form)[:3]}


async def test_one_picture_after_the_other(browse, store, tmp_path):
    async with browse(feedback=tmp_path / "feedback") as browser:
        page = (await browser.get("/feedback")).text
        assert "1 of 2 that wait" in page
        assert "&lt;b&gt;note" in page
        first = fields(page)
        done = await browser.post("/feedback/decide", data=first | {"reviewer": "ann", "verdict": "accept"})
        assert done.status_code == 303
        page = (await browser.get(done.headers["location"])).text
        assert "1 of 1 that wait" in page
        assert 'name="reviewer" value="ann"' in page
        second = fields(page)
        corrected = second | {"reviewer": "ann", "verdict": "correct", "label": "blue"}
        await browser.post("/feedback/decide", data=corrected)
        assert {one.picture: (one.verdict, one.labels) for one in store.decisions().values()} == {
            first["picture"]: ("accept", ("green",)),
            second["picture"]: ("correct", ("blue",)),
        }
        await browser.post("/feedback/undo", data={"picture": first["picture"], "reviewer": "ann", "at": "0"})
    assert list(store.decisions()) == [second["picture"]]


@pytest.mark.parametrize("place", ["9" * 5000, "-1", "x", "", "7"])
async def test_a_place_that_is_none_shows_one_that_is(browse, store, tmp_path, place):
    async with browse(feedback=tmp_path / "feedback") as browser:
        page = await browser.get("/feedback", params={"at": place})
    assert page.status_code == 200
    assert "of 2 that wait" in page.text


async def test_what_was_seen_is_what_is_decided(browse, store, tmp_path):
    async with browse(feedback=tmp_path / "feedback") as browser:
        seen = fields((await browser.get("/feedback")).text) | {"reviewer": "ann", "verdict": "accept"}
        store.add([entry("red")])  # Jane has changed her mind
        assert (await browser.post("/feedback/decide", data=seen)).status_code == 409
    assert not store.decisions()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"reviewer": " "}, 400),
        ({"verdict": "correct"}, 400),
        ({"label": "blue"}, 400),
        ({"verdict": "burn"}, 400),
        ({"verdict": "correct", "label": "a|b"}, 400),
        ({"picture": "0" * 64}, 404),
    ],
)
async def test_what_cannot_be_decided_is_said(browse, store, tmp_path, change, status):
    async with browse(feedback=tmp_path / "feedback") as browser:
        asked = fields((await browser.get("/feedback")).text) | {"reviewer": "ann", "verdict": "accept"} | change
        assert (await browser.post("/feedback/decide", data=asked)).status_code == status
    assert not store.decisions()


async def test_pictures_come_from_the_store_only(browse, store, tmp_path):
    (kept, _) = store.said()
    async with browse(feedback=tmp_path / "feedback") as browser:
        shown = await browser.get(f"/feedback/pictures/{kept.picture}.png")
        assert (shown.content, shown.headers["content-type"]) == (store.pictures.read(kept.picture, "png"), "image/png")
        for name in ("0" * 64 + ".png", f"{kept.picture}.sqlite", "..%2findex.sqlite", f"{kept.picture}.png.sealed"):
            assert (await browser.get(f"/feedback/pictures/{name}")).status_code == 404


async def test_what_is_sealed_needs_the_key(browse, tmp_path):
    pytest.importorskip("cryptography")
    (tmp_path / "key").write_bytes(bytes(32))
    seal = Seal(tmp_path / "key")
    sealed = Store(tmp_path / "sealed", seal=seal)
    sealed.add([entry("green")])
    (kept,) = sealed.said()
    path = f"/feedback/pictures/{kept.picture}.png"
    async with browse(feedback=tmp_path / "sealed") as browser:
        assert (await browser.get(path)).status_code == 403
    async with browse(feedback=tmp_path / "sealed", seal=seal) as browser:
        assert (await browser.get(path)).status_code == 200
    sealed.close()


@pytest.mark.slow
async def test_a_store_of_several_machines_is_reviewed_and_may_be_away(browse, tmp_path):
    pytest.importorskip("psycopg")
    with running() as server:
        place = Shared(server.new(), f"file://{tmp_path / 'pictures'}")
        store = Store(place)
        store.add([entry("green")])
        (kept,) = store.said()
        async with browse(feedback=place) as browser:
            seen = fields((await browser.get("/feedback")).text) | {"reviewer": "ann", "verdict": "accept"}
            assert (await browser.get(f"/feedback/pictures/{kept.picture}.png")).status_code == 200
            assert (await browser.post("/feedback/decide", data=seen)).status_code == 303
            assert [one.reviewer for one in store.decisions().values()] == ["ann"]
            server.stop("immediate")
            page = await browser.get("/feedback")
            assert (page.status_code, "The store of feedback does not answer." in page.text) == (503, True)
            server.start()
            assert (await browser.get("/feedback")).status_code == 200
        store.close()
