"""The model of the service by which benchmarks.scaling reckons, against theory and the service."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import simpy

from benchmarks.scaling.figures import IMAGES_PER_S, gpu_times
from benchmarks.scaling.fleets import Case, Device, judge, on_gpus
from benchmarks.scaling.machines import STEPPED_BACK_WEIGHT, WEIGHT, Core, Line, Thread
from benchmarks.scaling.provisioning import Need, fewest, provision
from benchmarks.scaling.replica import ON_CUDA, Limits, Replica, Workers
from benchmarks.scaling.routing import BALANCE_FACTOR, ROUTERS, ByStyle, LeastConnections
from benchmarks.scaling.simulation import Fleet, closed_loop, simulate
from benchmarks.scaling.times import NOTHING, Curve, Pass, ServiceTimes
from benchmarks.scaling.workload import BURSTS, DIURNAL, STEADY, Kind, Workload, draw
from service.batcher import Batcher
from service.settings import Settings

KIND = Kind("fast", 100, 100)
PASS_S = 0.1
# Quantiles of an exponential distribution, of mean 1.
EXPONENTIAL = -np.log(1 - (np.arange(1000) + 0.5) / 1000)
EXPONENTIAL /= EXPONENTIAL.mean()


def only_passes(*, noise: tuple[float, ...] = (1.0,), load_s: float = 0.0) -> ServiceTimes:
    """Times of a service whose passes alone take any: ``PASS_S``, and nothing more for a batch."""
    return ServiceTimes(
        passes={"fast": Pass(PASS_S, NOTHING)},
        decode=NOTHING,
        encode=NOTHING,
        http_s=0.0,
        load_s=load_s,
        noise=noise,
    )


def at(moments: list[float], networks: list[int] | None = None) -> Workload:
    zeros = np.zeros(len(moments), np.int64)
    return Workload((KIND,), np.array(moments), zeros, np.array(networks or zeros))


def finish_times(env: simpy.Environment, works: dict[str, simpy.Event]) -> dict[str, float]:
    finished: dict[str, float] = {}
    for name, event in works.items():
        event.callbacks.append(lambda _, name=name: finished.setdefault(name, env.now))
    env.run()
    return finished


# --- what work waits for


def test_a_core_gives_threads_time_by_their_weights_and_the_whole_to_the_last() -> None:
    env = simpy.Environment()
    core = Core(env)
    model, codec = Thread(env, core), Thread(env, core, STEPPED_BACK_WEIGHT)
    finished = finish_times(env, {"model": model.work(1.0), "codec": codec.work(1.0)})
    assert finished["model"] == pytest.approx(1 + STEPPED_BACK_WEIGHT / WEIGHT)
    assert finished["codec"] == pytest.approx(2.0)
    assert core.busy_s == pytest.approx(2.0)
    assert core.is_idle


def test_a_thread_that_joins_slows_the_other_from_then_on() -> None:
    env = simpy.Environment()
    core = Core(env)
    first, second = Thread(env, core), Thread(env, core)
    finished: dict[str, float] = {}

    def join():
        yield env.timeout(0.5)
        yield second.work(0.25)
        finished["second"] = env.now

    env.process(join())
    finished |= finish_times(env, {"first": first.work(1.0)})
    assert finished == {"second": pytest.approx(1.0), "first": pytest.approx(1.25)}


@pytest.mark.parametrize("kind", ["thread", "line"])
def test_pieces_of_work_of_one_worker_are_done_in_turn(kind: str) -> None:
    env = simpy.Environment()
    worker = Line(env) if kind == "line" else Thread(env, Core(env))
    finished = finish_times(env, {name: worker.work(1.0) for name in "abc"})
    assert finished == {"a": 1.0, "b": 2.0, "c": 3.0}


def test_a_curve_is_straight_between_its_points_and_in_proportion_beyond() -> None:
    curve = Curve((100.0, 200.0), (1.0, 3.0))
    assert [curve(pixels) for pixels in (100, 150, 200, 400)] == [1.0, 2.0, 3.0, 6.0]


# --- theory


@pytest.mark.parametrize("per_gpu", [0, 1], ids=["core", "gpu"])
@pytest.mark.parametrize("noise", [(1.0,), tuple(EXPONENTIAL)], ids=["M/D/1", "M/M/1"])
def test_the_mean_wait_is_that_of_pollaczek_and_khinchine(
    noise: tuple[float, ...], per_gpu: int
) -> None:
    load = 0.5
    fleet = Fleet(
        times=only_passes(noise=noise),
        replicas=1,
        per_gpu=per_gpu,
        limits=Limits(max_in_flight=10**6),
    )
    workload = draw((KIND,), rate=load / PASS_S, count=25_000, seed=3)
    outcome = simulate(fleet, workload, seed=3)
    second_moment = PASS_S**2 * float(np.mean(np.square(noise)))
    expected_s = PASS_S + load / PASS_S * second_moment / (2 * (1 - load))
    assert outcome.latencies_s.mean() == pytest.approx(expected_s, rel=0.05)
    assert outcome.busy == pytest.approx(load, rel=0.03)


def test_a_full_core_does_as_much_as_its_work_allows_whatever_the_weights() -> None:
    times = ServiceTimes(
        passes={"fast": Pass(0.05, NOTHING)},
        decode=Curve((1.0, 2.0), (0.02, 0.02)),
        encode=Curve((1.0, 2.0), (0.02, 0.02)),
        http_s=0.01,
    )
    flat = replace(times, decode=Curve((10_000.0,), (0.02,)), encode=Curve((10_000.0,), (0.02,)))
    outcome = closed_loop(Fleet(times=flat, replicas=1), KIND, clients=5, until_s=200)
    assert outcome.rate == pytest.approx(1 / 0.1, rel=0.01)
    # Little's law.
    assert outcome.latencies_s.mean() * outcome.rate == pytest.approx(5, rel=0.02)


# --- admission


def test_every_request_is_answered_refused_or_in_flight() -> None:
    fleet = Fleet(times=only_passes(), replicas=2, limits=Limits(max_in_flight=4))
    workload = draw((KIND,), rate=30, count=600, seed=1)
    stopped = simulate(fleet, workload, seed=1, until_s=float(workload.at_s[400]))
    assert stopped.arrived == 400
    assert 0 < stopped.in_flight <= 8
    assert stopped.arrived == stopped.answered + stopped.turned_away + stopped.in_flight
    whole = simulate(fleet, workload, seed=1)
    assert whole.in_flight == 0
    assert whole.arrived == len(workload) == whole.answered + whole.turned_away
    assert whole.turned_away > 100


@pytest.mark.parametrize(("replicas", "answered"), [(1, 3), (2, 6), (4, 10)])
def test_what_exceeds_the_places_of_all_replicas_is_refused(replicas: int, answered: int) -> None:
    fleet = Fleet(times=only_passes(), replicas=replicas, limits=Limits(max_in_flight=3))
    outcome = simulate(fleet, at([0.0] * 10), seed=0)
    assert (outcome.answered, outcome.turned_away) == (answered, 10 - answered)


def test_a_refusal_is_tried_once_at_another_replica() -> None:
    fleet = Fleet(times=only_passes(), replicas=3, limits=Limits(max_in_flight=1))
    outcome = simulate(fleet, at([0.0] * 5), seed=0)
    assert sum(counts.refused for counts in outcome.counts) == 2 * outcome.turned_away == 4


def test_pixels_bound_what_is_in_flight_but_for_a_picture_alone() -> None:
    limits = Limits(max_in_flight_pixels=2 * KIND.pixels)
    outcome = simulate(Fleet(times=only_passes(), replicas=1, limits=limits), at([0.0] * 5), seed=0)
    assert outcome.answered == 2
    tiny = Limits(max_in_flight_pixels=1)
    outcome = simulate(Fleet(times=only_passes(), replicas=1, limits=tiny), at([0.0] * 5), seed=0)
    assert outcome.answered == 1


def test_the_model_has_the_limits_that_the_service_has_by_default() -> None:
    settings = Settings()
    for name in ("max_in_flight", "max_in_flight_pixels", "max_batch_pixels"):
        assert getattr(Limits(), name) == getattr(ON_CUDA, name) == getattr(settings, name)


# --- batches


def batches_of_the_service(jobs: list[tuple[int, Kind]], limits: Limits) -> list[list[int]]:
    """Batches that the service's own batcher makes of what came while the first was running."""
    batches: list[list[int]] = []
    may_run = threading.Event()

    def run_batch(numbers):
        batches.append(list(numbers))
        may_run.wait(10)
        return numbers

    async def submit_all() -> None:
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(
                run_batch,
                key=lambda number: jobs[number],
                cost=lambda number: jobs[number][1].pixels,
                max_jobs=limits.max_batch_jobs,
                max_cost=limits.max_batch_pixels,
                executor=pool,
            )
            batcher.start()
            late = asyncio.get_running_loop().time() + 60
            waits = []
            for number in range(len(jobs)):
                waits.append(asyncio.create_task(batcher.submit(number, late)))
                await asyncio.sleep(0)
            await asyncio.sleep(0.05)
            may_run.set()
            await asyncio.gather(*waits)
            await batcher.aclose()

    asyncio.run(submit_all())
    return batches


def batches_of_the_model(jobs: list[tuple[int, Kind]], limits: Limits) -> list[list[int]]:
    env = simpy.Environment()
    line = Line(env)
    workers = Workers(Line(env), Line(env), painter=line, loader=line)
    replica = Replica(env, only_passes(), limits, workers)
    done: list[tuple[float, int]] = []

    def send(number: int):
        network, kind = jobs[number]
        yield env.timeout(number * 1e-6)
        assert (yield from replica.stylize(kind, network, 1.0))
        done.append((env.now, number))

    for number in range(len(jobs)):
        env.process(send(number))
    env.run()
    # Those of one pass end at the same moment.
    return [
        [number for _, number in batch] for _, batch in itertools.groupby(done, lambda end: end[0])
    ]


@pytest.mark.parametrize("seed", range(5))
def test_batches_are_those_that_the_batcher_of_the_service_makes(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  # batches, not secrets
    kinds = [KIND, Kind("fast", 100, 200), Kind("fast", 300, 300)]
    jobs = [(chance.randrange(2), chance.choice(kinds)) for _ in range(28)]
    limits = Limits(max_batch_jobs=4, max_batch_pixels=200_000)
    batches = batches_of_the_model(jobs, limits)
    assert batches == batches_of_the_service(jobs, limits)
    assert max(map(len, batches)) == 4
    assert all(len({jobs[number] for number in batch}) == 1 for batch in batches)


def test_a_second_pass_is_begun_only_when_it_is_full() -> None:
    limits = Limits(max_batch_jobs=2, passes_at_once=2)
    fleet = Fleet(times=only_passes(), replicas=1, limits=limits, per_gpu=1)
    # The second waits for the first; the third fills its pass, which goes to the device at once.
    outcome = simulate(fleet, at([0.0, 0.01, 0.02]), seed=0)
    assert outcome.counts[0].passes == 2
    (passes_s,) = (counts.passes_s for counts in outcome.counts)
    assert passes_s == pytest.approx(PASS_S + 2 * PASS_S - 0.02)


def test_a_network_that_is_not_resident_is_loaded_and_the_one_unused_longest_goes() -> None:
    limits = Limits(resident_networks=2)
    fleet = Fleet(times=only_passes(load_s=0.5), replicas=1, limits=limits)
    # 1 is used before 3 comes, so that 2 goes and has to be loaded again.
    outcome = simulate(fleet, at([0.0, 1, 2, 3, 4, 5], networks=[1, 2, 1, 3, 1, 2]), seed=0)
    assert outcome.counts[0].loads == 4
    slow = [latency > 0.5 for latency in outcome.latencies_s]
    assert slow == [True, True, False, True, False, True]


# --- routing


def make_replicas(count: int) -> list[Replica]:
    env = simpy.Environment()
    line = Line(env)
    workers = Workers(line, line, line, line)
    return [Replica(env, only_passes(), Limits(), workers) for _ in range(count)]


def test_least_connections_takes_one_of_those_with_fewest_after_any_history() -> None:
    chance, replicas = random.Random(0), make_replicas(7)  # noqa: S311
    router = LeastConnections(replicas, seed=0)
    open_ones: list[Replica] = []
    for _ in range(2000):
        if open_ones and chance.random() < 0.45:
            router.close(open_ones.pop(chance.randrange(len(open_ones))))
            continue
        refused_by = chance.choice([None, *replicas])
        replica = router.choose(0, refused_by)
        others = [other for other in replicas if other is not refused_by]
        assert replica.connections == min(other.connections for other in others)
        assert replica is not refused_by
        router.open(replica)
        open_ones.append(replica)
    assert sum(replica.connections for replica in replicas) == len(open_ones)


@pytest.mark.parametrize("routing", ["least connections", "two choices"])
def test_a_replica_that_is_busy_for_long_is_left_alone_until_it_has_answered(routing: str) -> None:
    large = Kind("fast", 1000, 1000)
    seconds = Curve((KIND.pixels, large.pixels), (PASS_S, 10.5))
    times = replace(only_passes(), passes={"fast": Pass(0.0, seconds)})
    kinds = np.array([1, *[0] * 10, *[0] * 200])
    workload = Workload((KIND, large), np.arange(211.0), kinds, np.zeros(211, np.int64))
    outcome = simulate(Fleet(times=times, replicas=2, routing=routing), workload, seed=0)
    fewer, more = sorted(counts.taken for counts in outcome.counts)
    # Ten go to the other; from then on both are idle whenever one comes, and chance decides.
    assert fewer + more == 211
    assert fewer > 70
    early = simulate(
        Fleet(times=times, replicas=2, routing=routing),
        Workload((KIND, large), np.arange(11.0), kinds[:11], np.zeros(11, np.int64)),
        seed=0,
    )
    assert sorted(counts.taken for counts in early.counts) == [1, 10]


@pytest.mark.parametrize("routing", ROUTERS)
def test_every_routing_tries_another_replica_after_a_refusal_where_there_is_one(
    routing: str,
) -> None:
    replicas = make_replicas(2)
    router = ROUTERS[routing](replicas, 0)
    for refused_by, other in (replicas, replicas[::-1]):
        assert {id(router.choose(network, refused_by)) for network in range(50)} == {id(other)}
    (only,) = make_replicas(1)
    assert ROUTERS[routing]([only], 0).choose(0, only) is only


def test_a_style_keeps_to_its_replica_while_that_has_room() -> None:
    replicas = make_replicas(8)
    router = ByStyle(replicas, seed=0)
    homes = {network: router.choose(network, None) for network in range(64)}
    for network, home in [*homes.items()] * 3:
        replica = router.choose(network, None)
        assert replica is home
        router.open(replica)
        router.close(replica)
    loads = Counter(id(home) for home in homes.values())
    assert len(loads) == 8


def test_a_style_that_all_ask_for_spills_over_and_no_replica_exceeds_its_bound() -> None:
    replicas = make_replicas(8)
    router = ByStyle(replicas, seed=0)
    used = []
    for number in range(1, 201):
        replica = router.choose(5, None)
        router.open(replica)
        used.append(replica)
        most = math.ceil(BALANCE_FACTOR * number / len(replicas))
        assert max(replica.connections for replica in replicas) <= most
    home = used[0]
    assert home.connections == max(replica.connections for replica in replicas)


def test_routing_by_style_loads_fewer_networks_and_loads_replicas_less_evenly() -> None:
    times, limits = only_passes(load_s=0.02), Limits(resident_networks=8)
    workload = draw((KIND,), rate=30, count=3000, seed=0, networks=64)
    least, by_style = (
        simulate(Fleet(times=times, replicas=8, limits=limits, routing=routing), workload, seed=0)
        for routing in ("least connections", "by style")
    )
    assert by_style.loads_share < 0.6 * least.loads_share
    assert by_style.unevenness > least.unevenness


# --- workloads and runs


@pytest.mark.parametrize("routing", ROUTERS)
def test_a_run_depends_on_its_seed_and_on_nothing_else(routing: str) -> None:
    fleet = Fleet(times=only_passes(noise=tuple(EXPONENTIAL)), replicas=3, routing=routing)

    def run(seed: int) -> list[float]:
        workload = draw((KIND,), rate=20, count=300, seed=seed, networks=4)
        return simulate(fleet, workload, seed=seed).latencies_s.tolist()

    assert run(1) == run(1)
    assert run(1) != run(2)


@pytest.mark.parametrize("traffic", [STEADY, DIURNAL, BURSTS], ids=lambda traffic: traffic.name)
def test_traffic_has_its_mean_rate_and_swings_about_it_as_it_says(traffic) -> None:
    rate, end_s = 500.0, 60.0
    workload = draw((KIND,), rate=rate, count=round(rate * end_s), seed=0, traffic=traffic)
    assert len(workload) == pytest.approx(rate * end_s, rel=0.02)
    assert np.all(np.diff(workload.at_s) >= 0)
    in_two_s, _ = np.histogram(workload.at_s, bins=30, range=(0, end_s))
    most, least = in_two_s.max() / 2 / rate, in_two_s.min() / 2 / rate
    between = (20 - 3 * 2) / 18
    expected = {"steady": (1, 1), "diurnal": (1.6, 0.4), "bursts": (3, between)}[traffic.name]
    assert (most, least) == pytest.approx(expected, rel=0.12)


def test_the_first_style_is_asked_for_twice_as_often_as_the_second() -> None:
    workload = draw((KIND,), rate=1, count=30_000, seed=0, networks=10)
    times = np.bincount(workload.network, minlength=10)
    assert times[0] / times[1] == pytest.approx(2, rel=0.08)
    assert times[0] / times[9] == pytest.approx(10, rel=0.15)


# --- figures and provisioning


def test_the_model_of_a_gpu_serves_as_fast_as_the_process_that_was_measured() -> None:
    times, figures = gpu_times("fast", load_s=0.0)
    outcome = closed_loop(
        on_gpus(times).fleet(1, processes=1), Kind("fast", 512, 512), clients=32, until_s=10
    )
    assert outcome.rate == pytest.approx(IMAGES_PER_S[1], rel=0.01)
    # The passes of one and of eight pictures are the engine's, too.
    measured = {figure.name: figure.value for figure in figures}
    for count in (1, 8):
        picture_ms = times.passes["fast"](512 * 512, count) * 1000 / count
        assert picture_ms == pytest.approx(measured[f"fast, ms a picture, passes of {count}"])


@pytest.mark.parametrize("answer", [3, 4, 17, 40, 99, 100])
def test_the_fewest_is_found_by_few_experiments(answer: int) -> None:
    tried: list[int] = []

    def holds(number: int) -> bool:
        tried.append(number)
        return number >= answer

    assert fewest(holds, 3, 100) == answer
    assert len(tried) <= 15
    assert fewest(lambda _: False, 3, 100) is None


def test_provisioning_finds_a_number_that_holds_while_one_less_does_not() -> None:
    device = Device(name="core", times=only_passes())
    need = Need(
        device=device,
        traffic=STEADY,
        rate=40,
        targets_ms=(400, 150, 50),
        requests=3000,
        seeds=1,
        kinds=(KIND,),
    )
    units = provision(need)["units"]
    workload = draw((KIND,), rate=40, count=3000, seed=0)
    for target_ms in (400, 150):
        for count, is_enough in ((units[target_ms], True), (units[target_ms] - 1, False)):
            outcome = simulate(device.fleet(count), workload, seed=0)
            holds = outcome.percentile_s(99) * 1000 <= target_ms and outcome.refused_share <= 0.001
            assert holds == is_enough
    assert units[150] > units[400] >= 5
    assert units[50] is None  # a pass takes 100 ms


def test_a_day_needs_what_its_busiest_hour_needs() -> None:
    """As short as a run can be, a day would fit into the queues of a fleet that is too small."""
    need = Need(
        device=Device(name="core", times=only_passes()),
        traffic=STEADY,
        rate=40 * 1.6,
        targets_ms=(200,),
        requests=2000,
        seeds=1,
        kinds=(KIND,),
    )
    day = replace(need, traffic=DIURNAL, rate=40)
    assert provision(day)["units"] == provision(need)["units"]
    assert provision(day)["units"][200] > 40 * 1.6 * PASS_S


def test_a_fleet_that_refuses_in_bursts_is_too_small_however_fast_it_answers() -> None:
    device = Device(name="core", times=only_passes())
    need = Need(
        device=device,
        traffic=BURSTS,
        rate=95,
        targets_ms=(60_000,),
        requests=1,
        seeds=1,
        kinds=(KIND,),
    )
    units = provision(need)["units"][60_000]
    assert units > 95 * PASS_S / 0.95
    for count, is_enough in ((units, True), (units - 1, False)):
        case = Case(device=device, units=count, rate=95, requests=1, traffic=BURSTS, kinds=(KIND,))
        assert (judge(case)["refused"] <= 0.001) == is_enough
