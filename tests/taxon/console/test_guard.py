"""What reaches the pages, and what browsers are told with every answer."""

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from taxon.console.guard import POLICY, Guard
from tests.taxon.console.conftest import ORIGIN, OWN

SENT = b"x" * 100


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{request.scope['root_path']} {len(await request.body())}")


def browser(**settings):
    given = {"hosts": (), "root_path": "", "max_body_bytes": len(SENT)} | settings
    guarded = Guard(Starlette(routes=[Route("/page", echo, methods=["GET", "POST"])]), **given)
    return httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url=ORIGIN)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (OWN, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),  # another port of this machine, another name of the domain
        ({"sec-fetch-site": "cross-site", "origin": ORIGIN}, 403),
        ({"origin": ORIGIN}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:8601"}, 403),
        ({"origin": "null"}, 403),
        ({}, 403),
    ],
)
async def test_only_own_pages_may_send(headers, status):
    async with browser() as client:
        assert (await client.post("/page", headers=headers)).status_code == status
        assert (await client.get("/page", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8600", 200),
        ("[::1]:8600", 200),
        ("console.example", 200),
        ("CONSOLE.example:443", 200),
        ("rebound.example", 403),
        ("localhost.evil.example", 403),
        ("", 403),
    ],
)
async def test_only_allowed_names_lead_here(host, status):
    async with browser(hosts=["console.example"]) as client:
        assert (await client.get("/page", headers={"host": host})).status_code == status


async def test_a_body_has_a_limit_with_and_without_a_length():
    async def in_parts():
        for _ in range(11):
            yield SENT[:10]

    async with browser() as client:
        assert (await client.post("/page", content=SENT, headers=OWN)).text.strip() == "100"
        assert (await client.post("/page", content=SENT + b"x", headers=OWN)).status_code == 413
        assert (await client.post("/page", content=in_parts(), headers=OWN)).status_code == 413


@pytest.mark.parametrize("path", ["/page", "/taxon/page"])
async def test_a_proxy_may_take_its_path_away_or_leave_it(path):
    async with browser(root_path="/taxon/") as client:
        assert (await client.get(path)).text == "/taxon 0"


async def test_every_answer_tells_browsers_what_not_to_do():
    async with browser() as client:
        for answer in (await client.get("/page"), await client.get("/nothing"), await client.post("/page")):
            assert answer.headers["content-security-policy"] == POLICY
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
            assert answer.headers["cache-control"] == "no-store"
    assert "unsafe" not in POLICY
