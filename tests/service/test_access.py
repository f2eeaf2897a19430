"""Who may call what, and how often."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from service.errors import RateLimitedError
from service.keys import KeyRing, KeyRingError, hash_key, main, make_key
from service.logs import JsonFormatter
from service.rate_limit import RateLimit, address_group
from service.settings import Settings, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

ALICE, ALICES_NEXT, BOB, OPS = "key-of-alice", "next-key-of-alice", "key-of-bob", "key-of-ops"
KEYS = {
    "api_keys": f"alice={hash_key(ALICE)}, alice={hash_key(ALICES_NEXT)},{hash_key(BOB)}",
    "admin_keys": f"ops={hash_key(OPS)}",
}
KEYED = [
    ("POST", "/stylize"),
    ("GET", "/styles"),
    ("GET", "/styles/ink"),
    ("GET", "/styles/ink/preview"),
]
OPEN = ["/livez", "/readyz", "/metrics", "/openapi.json", "/docs"]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def assert_problem(response: httpx.Response, status: int, slug: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == f"urn:atelier:error:{slug}"


# --- key rings


def test_a_key_is_known_by_its_hash_and_its_owner_by_name_or_first_digits() -> None:
    ring = KeyRing.parse(KEYS["api_keys"])
    owners = [ring.owner(key) for key in (ALICE, ALICES_NEXT, BOB)]
    assert owners == ["alice", "alice", hash_key(BOB)[:8]]
    for other in ("", ALICE + " ", ALICE[:-1], hash_key(ALICE), "é", "☃"):
        assert ring.owner(other) is None
    assert len(KeyRing.parse("")) == 0


def test_every_hash_is_compared_whichever_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the time that it takes would tell where in the list a key stands."""
    compared = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append(b)
        return a == b

    monkeypatch.setattr("service.keys.hmac.compare_digest", compare)
    ring = KeyRing.parse(KEYS["api_keys"])
    for key in (ALICE, BOB, "unknown"):
        compared.clear()
        ring.owner(key)
        assert len(compared) == 3


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("secret", "entry 1 of 1 is no SHA-256"),
        (f"alice={hash_key(ALICE)},secret", "entry 2 of 2"),
        (f"al ice={hash_key(ALICE)}", "entry 1 of 1"),
        (f"alice={hash_key(ALICE).upper()}", "lower-case"),
        (f"{hash_key(ALICE)},", "entry 2 of 2"),
        (f"alice={hash_key(ALICE)},bob={hash_key(ALICE)}", "entry 2 has a hash that stands there"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused_without_repeating_it(
    text: str, complaint: str
) -> None:
    with pytest.raises(KeyRingError, match=complaint) as caught:
        KeyRing.parse(text)
    assert "secret" not in str(caught.value)


def test_the_command_prints_a_key_and_the_entry_that_lets_it_in(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["alice"]) == 0
    _, key, _, entry = (line.strip() for line in capsys.readouterr().out.splitlines())
    assert KeyRing.parse(entry).owner(key) == "alice"
    with pytest.raises(SystemExit):
        main(["al ice"])


def test_keys_differ_and_hold_256_bits() -> None:
    keys = {make_key() for _ in range(10)}
    assert len(keys) == 10
    assert min(len(key) for key in keys) >= 43


# --- who may call what


@pytest.fixture(scope="module")
async def keyed(open_client: Any) -> Any:
    async with open_client(**KEYS, runtime="torch") as client:
        yield client


@pytest.mark.parametrize(("method", "path"), KEYED)
async def test_without_a_known_key_401_says_how_to_send_one(
    keyed: Any, method: str, path: str
) -> None:
    none = await keyed.http.request(method, path)
    assert_problem(none, 401, "unauthorized")
    assert none.headers["www-authenticate"] == 'Bearer realm="atelier"'
    assert "X-API-Key" in none.json()["detail"]
    for headers in (bearer("wrong"), {"X-API-Key": hash_key(ALICE)}, {"X-API-Key": "é".encode()}):
        wrong = await keyed.http.request(method, path, headers=headers)
        assert_problem(wrong, 401, "unauthorized")
        assert wrong.headers["www-authenticate"].endswith('error="invalid_token"')


@pytest.mark.parametrize("path", OPEN)
async def test_probes_metrics_and_the_description_need_no_key(keyed: Any, path: str) -> None:
    assert (await keyed.http.get(path)).status_code == 200


@pytest.mark.parametrize("key", [ALICE, ALICES_NEXT, BOB, OPS])
async def test_every_known_key_paints_however_it_is_sent(
    keyed: Any, photo_jpeg: bytes, key: str
) -> None:
    basic = {"Authorization": "Basic YTpi"}  # a proxy's own
    for headers in (bearer(key), {"X-API-Key": key}, {"X-API-Key": key} | basic):
        assert (await keyed.stylize(photo_jpeg, headers=headers)).status_code == 200
    lower = {"Authorization": f"bearer {key}"}
    assert (await keyed.http.get("/styles", headers=lower)).status_code == 200


async def test_a_key_in_the_query_opens_nothing(keyed: Any) -> None:
    """It would stand in the log of every proxy on the way."""
    for name in ("key", "api_key", "X-API-Key"):
        response = await keyed.http.get("/styles", params={name: ALICE})
        assert_problem(response, 401, "unauthorized")


async def test_what_a_key_opened_is_not_for_shared_caches(keyed: Any, client: Any) -> None:
    for path in ("/styles", "/styles/ink", "/styles/ink/preview"):
        kept = (await keyed.http.get(path, headers=bearer(ALICE))).headers["cache-control"]
        assert kept.startswith("private")
        assert (await client.http.get(path)).headers["cache-control"].startswith("public")


async def test_what_a_key_opened_is_not_for_those_who_come_without(keyed: Any) -> None:
    """A browser holds an answer for all its pages, unless it says whom it is for."""
    for path in ("/styles", "/styles/ink", "/styles/ink/preview"):
        found = await keyed.http.get(path, headers=bearer(ALICE))
        held = {"If-None-Match": found.headers["etag"], **bearer(ALICE)}
        for answer in (found, await keyed.http.get(path, headers=held)):
            assert answer.headers["vary"] == "Authorization, X-API-Key"


async def test_without_keys_everyone_paints_whatever_they_send(
    client: Any, photo_jpeg: bytes
) -> None:
    assert (await client.stylize(photo_jpeg, headers=bearer("any"))).status_code == 200


async def test_a_body_without_a_key_is_not_read(keyed: Any) -> None:
    read = []

    async def body() -> Any:
        read.append(1)
        yield b"x" * 1000

    headers = {"Content-Type": "image/jpeg"}
    # The client's transport reads ahead; what arrived is counted where the service asks for it.
    response = await keyed.http.post("/stylize?style=ink", content=body(), headers=headers)
    assert_problem(response, 401, "unauthorized")
    assert read == []


async def test_admin_when_there_are_no_admin_keys_then_404(open_client: Any) -> None:
    async with open_client(api_keys=KEYS["api_keys"]) as client:
        for path in ("/admin/reload", "/admin", "/admin/anything"):
            response = await client.http.post(path, headers=bearer(ALICE))
            assert_problem(response, 404, "not-found")
        assert "/admin/reload" not in (await client.http.get("/openapi.json")).json()["paths"]


async def test_admin_needs_an_administrators_key(keyed: Any) -> None:
    assert_problem(await keyed.http.post("/admin/reload"), 401, "unauthorized")
    wrong = await keyed.http.post("/admin/reload", headers=bearer("wrong"))
    assert_problem(wrong, 401, "unauthorized")
    response = await keyed.http.post("/admin/reload", headers=bearer(ALICE))
    assert_problem(response, 403, "forbidden")
    assert 'error="insufficient_scope"' in response.headers["www-authenticate"]
    assert (await keyed.http.post("/admin/reload", headers=bearer(OPS))).status_code == 200


async def test_admin_keys_alone_leave_painting_open(open_client: Any, photo_jpeg: bytes) -> None:
    async with open_client(admin_keys=KEYS["admin_keys"]) as client:
        assert (await client.stylize(photo_jpeg)).status_code == 200
        assert_problem(await client.http.post("/admin/reload"), 401, "unauthorized")


async def test_metrics_when_they_need_a_key_then_either_kind_opens_them(open_client: Any) -> None:
    async with open_client(metrics_need_key=True, **KEYS) as client:
        assert_problem(await client.http.get("/metrics"), 401, "unauthorized")
        for key in (ALICE, OPS):
            assert (await client.http.get("/metrics", headers=bearer(key))).status_code == 200


async def test_openapi_says_which_calls_need_a_key(keyed: Any) -> None:
    document = (await keyed.http.get("/openapi.json")).json()
    assert document["components"]["securitySchemes"]["header"]["name"] == "X-API-Key"
    paths = document["paths"]
    for path, method in (("/stylize", "post"), ("/styles", "get"), ("/admin/reload", "post")):
        assert {"bearer": []} in paths[path][method]["security"]
        assert {"header": []} in paths[path][method]["security"]
        assert "401" in paths[path][method]["responses"]
    assert "security" not in paths["/livez"]["get"]


# --- what is written down


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that the process logs, at the most talkative level."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


async def test_the_log_names_the_owner_and_never_the_key(
    keyed: Any, photo_jpeg: bytes, log: io.StringIO
) -> None:
    for headers in (bearer(ALICE), {"X-API-Key": ALICE}, bearer("wrong-key-of-mallory")):
        await keyed.stylize(photo_jpeg, headers=headers)
        await keyed.http.post("/admin/reload", headers=headers)
    written = log.getvalue()
    lines = [json.loads(line) for line in written.splitlines() if '"request_finished"' in line]
    assert [line["caller"] for line in lines] == ["alice", "", "alice", "", "", ""]
    assert "wrong-key" not in written
    assert ALICE not in written


@pytest.mark.parametrize("mistake", ["atelier_my-secret-key", "alice=atelier_my-secret-key"])
def test_a_key_set_in_place_of_its_hash_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    monkeypatch.setenv("ATELIER_API_KEYS", mistake)
    monkeypatch.setenv("ATELIER_ADMIN_KEYS", mistake)
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment()
    said = "\n".join(caught.value.problems)
    assert "ATELIER_API_KEYS=...: entry 1 of 1 is no SHA-256" in said
    assert "secret-key" not in said


def test_settings_do_not_show_hashes(make_settings: Any) -> None:
    assert hash_key(ALICE) not in repr(make_settings(**KEYS))


# --- how often


async def test_rate_when_one_key_is_too_fast_then_429_says_when_and_others_paint(
    open_client: Any, stub_engine: Any, photo_jpeg: bytes
) -> None:
    async with open_client(stub_engine, rate_limit="2/hour", **KEYS) as client:
        for key in (ALICE, ALICES_NEXT):
            assert (await client.stylize(photo_jpeg, headers=bearer(key))).status_code == 200
        response = await client.stylize(photo_jpeg, headers=bearer(ALICE))
        assert_problem(response, 429, "rate-limited")
        assert "2 requests in 3600 s" in response.json()["detail"]
        assert 1 <= int(response.headers["retry-after"]) <= 3600
        assert response.headers["ratelimit-policy"] == '"default";q=2;w=3600'
        assert response.headers["ratelimit"].startswith('"default";r=0;t=')
        assert (await client.stylize(photo_jpeg, headers=bearer(BOB))).status_code == 200
        assert (await client.http.get("/styles", headers=bearer(ALICE))).status_code == 200
        assert (
            'atelier_problems_total{problem="rate-limited"} 1.0'
            in (await client.http.get("/metrics")).text
        )


async def test_rate_when_there_are_no_keys_then_counts_addresses(
    open_client: Any, stub_engine: Any, photo_jpeg: bytes
) -> None:
    async with open_client(stub_engine, rate_limit="1/hour") as client:

        async def ask(host: str) -> int:
            transport = httpx.ASGITransport(client.app, client=(host, 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://a") as http:
                answer = await http.post("/stylize?style=ink", content=photo_jpeg)
                return answer.status_code

        hosts = ("192.0.2.1", "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2")
        assert [await ask(host) for host in hosts] == [200, 429, 200, 200, 429]


async def test_rate_does_not_count_callers_without_a_key(
    open_client: Any, stub_engine: Any, photo_jpeg: bytes
) -> None:
    async with open_client(stub_engine, rate_limit="1/hour", **KEYS) as client:
        for _ in range(3):
            assert (await client.stylize(photo_jpeg)).status_code == 401
        assert (await client.stylize(photo_jpeg, headers=bearer(ALICE))).status_code == 200


def test_an_address_is_one_caller_and_so_is_an_ipv6_network_of_64_bits() -> None:
    assert address_group("192.0.2.7") == address_group("::ffff:192.0.2.7") == "192.0.2.7"
    assert address_group("2001:db8:0:1::7") == "2001:db8:0:1::/64"
    assert address_group("unix") == "unix"


async def test_rate_forgets_callers_whose_time_has_passed(wait_until: Any) -> None:
    """Whoever calls from ever other addresses would otherwise fill the memory."""
    rate = RateLimit("1000/second")
    for number in range(100):
        rate.hit(f"caller {number}")
    storage = rate._limiter.storage

    def is_forgotten() -> bool:
        with contextlib.suppress(RateLimitedError):
            rate.hit("another")
        return max(len(storage.storage), len(storage.locks), len(storage.expirations)) < 10

    await wait_until(is_forgotten)


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"rate_limit": "often"}, "ATELIER_RATE_LIMIT=often: write a number and a time"),
        ({"rate_limit": "0/minute"}, "ATELIER_RATE_LIMIT=0/minute: write a number"),
        ({"cors_origins": "example.org"}, "'example.org' is no origin"),
        ({"cors_origins": "https://a.example/path"}, "is no origin"),
        ({"metrics_need_key": "true"}, "ATELIER_METRICS_NEED_KEY needs ATELIER_API_KEYS or"),
    ],
)
def test_settings_that_make_no_sense_stop_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], complaint: str
) -> None:
    monkeypatch.setenv("ATELIER_ZOO", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(f"ATELIER_{name.upper()}", value)
    with pytest.raises(SettingsError, match=complaint):
        Settings.from_environment()
