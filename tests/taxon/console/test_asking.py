"""A picture, its answer, why, and what somebody says of it, through a real server."""

import re

import pytest

from taxon.feedback.store import Store
from tests.fakes import COLORS, picture
from tests.taxon.console.conftest import EVIL, OWN

pytestmark = pytest.mark.asyncio(loop_scope="module")


def sent(name: str = "leaf.png") -> dict:
    return {"picture": (name, picture(COLORS["green"]), "image/png")}


def request_id(page: str) -> str:
    return re.search(r'name="request_id" value="([0-9a-f]{32})"', page)[1]


async def test_an_answer_has_scores_timing_version_and_id(shared, browse):
    async with browse(shared.address) as browser:
        asked = await browser.get("/")
        assert asked.status_code == 200
        assert '<option value="colors/1">' in asked.text
        answer = await browser.post("/classify", files=sent(), data={"model": "colors"})
    assert answer.status_code == 200
    labels = re.findall(r'<th scope="row">(\w+)</th><td class="number">([\d.]+)%', answer.text)
    assert [label for label, _ in labels] == ["green", "red", "blue"]
    assert float(labels[0][1]) > 99
    assert '<a href="/models/colors/1">colors 1</a>' in answer.text
    assert re.search(r"Took</dt><dd>[\d.]+ ms", answer.text)
    assert request_id(answer.text)


async def test_html_in_labels_and_file_names_is_text(shared, browse):
    async with browse(shared.address) as browser:
        answer = await browser.post("/classify", files=sent(f"{EVIL}.png"), data={"model": "evil"})
        version = await browser.get("/models/evil/1")
        why = await browser.post("/explain", files=sent(f"{EVIL}.png"), data={"model": "evil", "label": EVIL})
    for page in (answer, version, why):
        assert page.status_code == 200
        assert "<img src=x" not in page.text
        assert "&lt;img src=x onerror=alert(1)&gt;" in page.text
    assert 'value="label:&#34;quoted&#34;"' in answer.text
    assert '<img src="data:image/png;base64,iVBOR' in why.text


async def test_training_pictures_that_are_alike_stand_beside_the_heat_map(shared, browse):
    """Of the model that holds some, and only there; their labels are text too."""
    async with browse(shared.address) as browser:
        alike = await browser.post("/explain", files=sent(), data={"model": "alike"})
        other = await browser.post("/explain", files=sent(), data={"model": "evil"})
    assert alike.text.count('<img src="data:image/jpeg;base64,/9j/') == 2
    assert "&lt;img src=x onerror=alert(1)&gt; <span" in alike.text
    assert "<img src=x" not in alike.text
    assert "Training pictures" not in other.text


async def test_what_cannot_be_classified_is_said(shared, browse):
    cases = [
        (None, "colors", 400, "There is no picture"),
        ({"picture": ("", b"", "")}, "colors", 400, "There is no picture"),
        ({"picture": ("a.png", b"no picture", "image/png")}, "colors", 400, "The server cannot take that."),
        ({"picture": ("a.png", b"\x89PNG" + bytes(3000), "image/png")}, "colors", 413, "3,000 bytes"),
        ({"picture": ("a.png", bytes(100_000), "image/png")}, "colors", 413, "bytes may not be sent"),
        (sent(), "colors/7", 404, "no such model or version"),
    ]
    async with browse(shared.address, max_picture_bytes=3000) as browser:
        for files, model, status, told in cases:
            answer = await browser.post("/classify", files=files, data={"model": model})
            assert answer.status_code == status
            assert told in answer.text
        bad = await browser.post("/explain", files=sent(), data={"model": "colors", "label": "mauve"})
        assert bad.status_code == 400
        assert (await browser.get("/classify")).status_code == 405


async def test_feedback_is_kept(shared, browse):
    async with browse(shared.address) as browser:
        answer = await browser.post("/classify", files=sent(), data={"model": "colors"})
        said = {"request_id": request_id(answer.text), "contributor": "jane", "consent": "yes", "note": "a leaf"}
        told = await browser.post("/say", data=said | {"choice": "other", "other_label": EVIL})
        assert told.status_code == 200
        assert "Proposed as new: &lt;img" in told.text
        again = await browser.post("/say", data=said | {"choice": "label:blue", "share": "yes"})
        assert again.status_code == 200
    store = Store(shared.feedback)
    (kept,) = store.said()
    store.close()
    assert (kept.labels, kept.consent, kept.note, kept.answered[0]) == (("blue",), "share", "a leaf", "green")


async def test_half_said_is_not_kept(shared, browse):
    whole = {"request_id": "0" * 32, "contributor": "jane", "consent": "yes"}
    cases = [
        ({}, 400, "nothing is chosen"),
        ({"choice": "other"}, 400, "chosen and not written"),
        ({"choice": "label:red", "other_label": "lynx"}, 400, "written and not chosen"),
        ({"choice": ["none", "label:red"]}, 400, "cannot be right"),
        ({"choice": "label:red", "consent": ""}, 400, "Without consent"),
        ({"choice": "label:red", "contributor": ""}, 400, "contributor"),
        ({"choice": "label:red", "request_id": ""}, 400, "request_id"),
        ({"choice": "none"}, 404, "no longer remembers"),
    ]
    async with browse(shared.address) as browser:
        for said, status, told in cases:
            answer = await browser.post("/say", data=whole | said)
            assert answer.status_code == status
            assert told in answer.text


async def test_other_sites_cannot_send(shared, browse):
    async with browse(shared.address) as browser:
        answer = await browser.post("/classify", files=sent(), headers=OWN | {"sec-fetch-site": "cross-site"})
    assert answer.status_code == 403
