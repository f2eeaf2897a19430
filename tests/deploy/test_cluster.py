"""The service on a real Ray cluster of two nodes, which are two `ray start` on this machine."""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from benchmarks.load import Answer, Call, make_form, make_jpeg, saturate
from benchmarks.ray_nodes import Cluster, Node, run_cluster
from tests.conftest import TINY_STYLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.conftest import ServerProcess

pytestmark = pytest.mark.slow

# Asked for again, it is not deployed anew.
STEADY = {"engines_min": 2, "engines_max": 2}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes of one core each; what takes requests is on the first."""
    with run_cluster(cores=1) as cluster:
        cluster.add_node(cores=1)
        yield cluster


@pytest.fixture(scope="module")
def deploy(cluster: Cluster, tiny_zoo: Path) -> Callable[..., None]:
    """Deploy the service with the tiny zoo; arguments are options of the cluster."""

    def deploy(**options: float) -> None:
        settings = {"ATELIER_ZOO": str(tiny_zoo), "ATELIER_WARM_UP_SIDE_PX": "16"}
        cluster.deploy(settings, **options)
        cluster.wait_for(lambda: get(cluster.url, "/readyz") == 200, "readiness")

    return deploy


def photograph(side_px: int = 128) -> bytes:
    return make_jpeg(side_px, side_px)


def get(url: str, path: str) -> int:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def post(url: str, call: Call, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        connection.request("POST", call.path, call.body, call.headers | headers)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def in_background(
    url: str, calls: list[Call], *, clients: int, seconds: float
) -> Callable[[], list[Answer]]:
    """Begin a load; what is returned waits for its end and gives the answers."""
    answers: list[Answer] = []
    load = threading.Thread(
        target=lambda: answers.extend(saturate(url, calls, clients=clients, seconds=seconds)[0])
    )
    load.start()

    def finish() -> list[Answer]:
        load.join()
        return answers

    return finish


def statuses(answers: list[Answer]) -> Counter[int]:
    return Counter(answer.status for answer in answers)


@pytest.mark.timeout(200)
def test_cluster_paints_the_same_bytes_as_one_process(
    cluster: Cluster,
    deploy: Callable[..., None],
    start_service: Callable[..., AbstractContextManager[ServerProcess]],
) -> None:
    deploy(**STEADY)
    fields: list[dict[str, str]] = [
        {"style": "ink"},
        {"style": "wash", "format": "png", "strength": "0.5"},
        {"style": "wash", "format": "webp", "keep_colors": "true", "max_side": "96"},
        {"style": "nobody"},
        {"style": "ink", "quality": "101"},
    ]
    calls = [make_form(photograph(), **each) for each in fields]
    # Not a picture: an error of the engine, which crosses to the process that answers.
    calls.append(make_form(b"no picture", style="ink"))
    with start_service() as alone:
        for call in calls:
            expected, expected_body = post(alone.url, call, **{"X-Request-ID": "one"})
            response, body = post(cluster.url, call, **{"X-Request-ID": "one"})
            assert response.status == expected.status
            assert body == expected_body
            for name in ("Content-Type", "Content-Disposition", "Vary"):
                assert response.getheader(name) == expected.getheader(name)
            assert response.headers.get_all("X-Request-ID") == ["one"]
    assert response.status == 415
    finished = [event["request_id"] for event in cluster.log_events("work_finished")]
    assert "one" in finished, "an engine logs under the id that the caller gave"


@pytest.mark.timeout(120)
def test_engine_ends_the_work_of_a_caller_who_hangs_up_or_runs_out_of_time(
    cluster: Cluster, deploy: Callable[..., None]
) -> None:
    deploy(**STEADY)
    slow = make_form(photograph(4096), style="ink", max_side="4096")
    before = len(cluster.log_events("work_finished"))

    def ended(problem: str) -> bool:
        events = cluster.log_events("work_finished")[before:]
        return problem in {event["problem"] for event in events}

    response, body = post(cluster.url, slow, **{"X-Request-Timeout-Seconds": "1.5"})
    assert response.status == 504
    assert b"urn:atelier:error:deadline-passed" in body
    cluster.wait_for(lambda: ended("deadline-passed") or ended("client-closed-request"), "end")
    before = len(cluster.log_events("work_finished"))

    connection = http.client.HTTPConnection(urlsplit(cluster.url).netloc, timeout=60)
    connection.request("POST", slow.path, slow.body, slow.headers)
    time.sleep(1.5)
    connection.close()
    started = time.monotonic()
    cluster.wait_for(lambda: ended("client-closed-request"), "end of work that nobody waits for")
    assert time.monotonic() - started < 10, "the painting alone takes longer"


@pytest.mark.timeout(120)
def test_nodes_export_the_metrics_of_the_service(
    cluster: Cluster, deploy: Callable[..., None]
) -> None:
    deploy(**STEADY)
    call = make_form(photograph(), style="ink")
    saturate(cluster.url, [call], clients=1, count=3)

    def samples(name: str, deployment: str) -> list[float]:
        pattern = rf'^ray_{name}{{.*deployment="{deployment}".*}} (\S+)$'
        return [float(value) for value in re.findall(pattern, cluster.metrics(), re.MULTILINE)]

    for name, deployment in (
        ("atelier_requests_total", "Ingress"),
        ("atelier_batch_size_count", "Engine"),
    ):
        cluster.wait_for(
            lambda name=name, deployment=deployment: sum(samples(name, deployment)) >= 3,
            f"{name} of 3 or more",
        )
    assert samples("atelier_stage_seconds_bucket", "Ingress")
    assert samples("atelier_ready", "Engine")


@pytest.mark.timeout(200)
def test_node_killed_under_load_costs_at_most_what_it_was_painting(
    cluster: Cluster, deploy: Callable[..., None]
) -> None:
    """What an engine had is sent to another; what an ingress had there, Ray's proxy answers 500."""
    clients = 6
    deploy(**STEADY)
    calls = [make_form(photograph(256), style=style) for style in TINY_STYLES]
    saturate(cluster.url, calls, clients=2, count=8)
    finish = in_background(cluster.url, calls, clients=clients, seconds=15)
    time.sleep(4)
    lost: Node = cluster.nodes.pop()
    lost.kill()
    seen = statuses(finish())
    assert set(seen) <= {200, 500, 503}, seen
    assert seen.total() - seen[200] <= clients, seen
    answers, _ = saturate(cluster.url, calls, clients=2, count=10)
    assert statuses(answers) == {200: 10}, "what is left goes on"

    cluster.add_node(cores=1)
    cluster.wait_for(lambda: cluster.engines == 2, "second engine on the new node")
    answers, _ = saturate(cluster.url, calls, clients=2, count=10)
    assert statuses(answers) == {200: 10}


@pytest.mark.timeout(120)
def test_styles_stay_with_the_engines_that_have_them(
    cluster: Cluster, deploy: Callable[..., None]
) -> None:
    """Each engine keeps one network: sent anywhere, every other request would load one."""
    deploy(engines_min=2, engines_max=2, networks_max=1)
    calls = [make_form(photograph(), style=style) for style in TINY_STYLES]
    saturate(cluster.url, calls, clients=1, count=4)  # Ray tells its routers within a second
    time.sleep(2)
    loads = len(cluster.log_events("network_loaded"))
    answers, _ = saturate(cluster.url, calls, clients=1, count=40)
    assert statuses(answers) == {200: 40}
    assert len(cluster.log_events("network_loaded")) - loads <= 4


@pytest.mark.timeout(120)
def test_full_cluster_answers_429_with_retry_after_and_a_problem(
    cluster: Cluster, deploy: Callable[..., None]
) -> None:
    deploy(engines_min=1, engines_max=1, ongoing_max=1, queued_max=2)
    finish = in_background(
        cluster.url, [make_form(photograph(512), style="ink")], clients=12, seconds=6
    )
    time.sleep(3)
    refused = [post(cluster.url, make_form(photograph(), style="ink")) for _ in range(20)]
    seen = statuses(finish())
    assert set(seen) == {200, 429}
    busy = [(response, body) for response, body in refused if response.status == 429]
    assert busy, "a full cluster refuses"
    for response, body in busy:
        assert int(response.getheader("Retry-After", "0")) >= 1
        assert b"urn:atelier:error:busy" in body
    response, _ = post(cluster.url, make_form(photograph(), style="ink"))
    assert response.status == 200, "and takes requests again"


@pytest.mark.timeout(200)
def test_engines_are_added_under_load_and_let_go_after_it(
    cluster: Cluster, deploy: Callable[..., None]
) -> None:
    deploy(engines_min=1, engines_max=2, ongoing_target=1, upscale_delay_s=1, downscale_delay_s=4)
    cluster.wait_for(lambda: cluster.engines == 1, "single engine")
    finish = in_background(
        cluster.url, [make_form(photograph(256), style="ink")], clients=4, seconds=15
    )
    cluster.wait_for(lambda: cluster.engines == 2, "second engine")
    assert set(statuses(finish())) == {200}
    cluster.wait_for(lambda: cluster.engines == 1, "return to one engine")
    response, _ = post(cluster.url, make_form(photograph(), style="ink"))
    assert response.status == 200
