"""The files around the packages agree with each other and with the service's settings."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from service.lifecycle import CLOSE_WITHIN_S
from service.logs import REQUEST_ID_PATTERN
from service.settings import ENV_PREFIX, Settings

ROOT = Path(__file__).parents[1]
MAX_FILE_BYTES = 4 * 2**20
SECONDS = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600}
BYTES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def setting(name: str) -> float:
    return Settings.model_fields[name].get_default(call_default_factory=True)


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads(text("pyproject.toml"))["project"]


@pytest.fixture(scope="module")
def compose() -> dict:
    return yaml.safe_load(text("docker-compose.yml"))


@pytest.fixture(scope="module")
def replicas(compose: dict) -> dict[str, dict]:
    return {name: body for name, body in compose["services"].items() if "build" in body}


@pytest.fixture(scope="module")
def nginx() -> dict[str, list[str]]:
    """Every directive of nginx.conf with the arguments of each place it stands in."""
    directives: dict[str, list[str]] = {}
    for line in text("deploy/nginx/nginx.conf").splitlines():
        if match := re.fullmatch(r"\s*([a-z_]+)\s+([^;{]+);", line):
            directives.setdefault(match[1], []).append(match[2])
    return directives


def quantity(value: str, units: dict[str, float]) -> float:
    match = re.fullmatch(r"([0-9.]+)([a-z]*)", value)
    assert match, f"{value!r} is not a number with a unit"
    return float(match[1]) * units[match[2]]


def upstream_block() -> str:
    match = re.search(r"upstream \w+ \{(.*?)\n    \}", text("deploy/nginx/nginx.conf"), re.DOTALL)
    assert match
    return match[1]


# --- licence, changelog, sizes


def test_the_licence_is_the_whole_apache_2_text_and_pyproject_says_so(project: dict) -> None:
    words = text("LICENSE").split()
    assert words[:4] == ["Apache", "License", "Version", "2.0,"]
    assert "END OF TERMS AND CONDITIONS" in text("LICENSE")
    assert len(words) == 1581
    assert project["license"] == "Apache-2.0"


def test_the_changelog_has_an_unreleased_section() -> None:
    assert re.search(r"^## \[Unreleased\]$", text("CHANGELOG.md"), re.MULTILINE)


def test_no_tracked_file_is_larger_than_a_shipped_style_may_be() -> None:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(
        [git, "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout
    files = [ROOT / name for name in listing.split("\0") if name]
    too_large = [str(f) for f in files if f.is_file() and f.stat().st_size > MAX_FILE_BYTES]
    assert too_large == []


# --- installing


@pytest.mark.parametrize(
    "target",
    [
        "help",
        "serve",
        "cluster",
        "test",
        "test-deploy",
        "test-page",
        "soak",
        "check",
        "docs",
        "format",
        "bench",
        "train",
        "zoo-check",
        "zoo-docs",
        "clean",
    ],
)
def test_the_makefile_has_the_target_and_says_what_it_does(target: str) -> None:
    assert re.search(rf"^{target}:.* ## \S", text("Makefile"), re.MULTILINE)


def test_every_dependency_is_pinned_to_a_version_that_its_requirement_allows(project: dict) -> None:
    pins = {
        canonicalize_name(name): Version(version)
        for name, version in re.findall(r"^([\w.-]+)==(\S+)$", text("constraints.txt"), re.M)
    }
    extras = project["optional-dependencies"].values()
    declared = [Requirement(line) for group in (project["dependencies"], *extras) for line in group]
    others = [r for r in declared if canonicalize_name(r.name) != project["name"]]
    unpinned = {r.name for r in others if canonicalize_name(r.name) not in pins}
    assert unpinned == set()
    refused = {str(r) for r in others if pins[canonicalize_name(r.name)] not in r.specifier}
    assert refused == set()


def test_the_image_is_built_from_every_package_and_file_that_the_build_needs(project: dict) -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    needed = packages | {"pyproject.toml", "constraints.txt", project["readme"], "LICENSE"}
    let_in = {line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")}
    assert let_in == needed
    copied = {
        word
        for line in re.findall(r"^COPY (?!--from)(.+)$", text("Dockerfile"), re.MULTILINE)
        for word in line.split()[:-1]
    }
    assert copied == needed


# --- the container


def test_the_container_runs_as_a_numeric_user_that_is_not_root() -> None:
    users = re.findall(r"^USER (.+)$", text("Dockerfile"), re.MULTILINE)
    assert users
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])


def test_the_container_starts_without_a_shell_so_that_signals_arrive() -> None:
    commands = re.findall(r"^CMD (.+)$", text("Dockerfile"), re.MULTILINE)
    assert [ast.literal_eval(command) for command in commands] == [["python", "-m", "service"]]
    assert "STOPSIGNAL SIGTERM" in text("Dockerfile")


def test_the_health_check_is_python_that_asks_for_readiness() -> None:
    match = re.search(r"^HEALTHCHECK .*\\\n +CMD (.+)$", text("Dockerfile"), re.MULTILINE)
    assert match
    command = ast.literal_eval(match[1])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "HEALTHCHECK", "exec")
    assert "/readyz" in command[2]


def test_no_image_or_index_is_bound_to_a_registry_host(compose: dict) -> None:
    images = re.findall(r"^(?:ARG BASE_IMAGE=|FROM )(\S+)", text("Dockerfile"), re.MULTILINE)
    images += [body["image"] for body in compose["services"].values()]
    for image in images:
        first, slash, _ = image.partition("/")
        assert not (slash and re.search(r"[.:]|^localhost$", first)), image
    for name in ("Dockerfile", "docker-compose.yml", "Makefile", ".ci/run", "constraints.txt"):
        hosts = set(re.findall(r"https?://([\w.-]+)", text(name)))
        assert hosts <= {"localhost", "127.0.0.1"}, name


def test_the_container_sets_only_settings_that_the_service_reads(replicas: dict) -> None:
    in_image = set(re.findall(rf"\b({ENV_PREFIX}\w+)=", text("Dockerfile")))
    in_compose = {name for body in replicas.values() for name in body["environment"]}
    known = {ENV_PREFIX + field.upper() for field in Settings.model_fields}
    assert in_image <= known
    assert {name for name in in_compose if name.startswith(ENV_PREFIX)} <= known


def test_the_container_holds_nothing_to_install_with_and_no_secret() -> None:
    assert "venv --without-pip" in text("Dockerfile")
    assert not re.search(r"^(?:ARG|ENV).*(?:KEY|TOKEN|SECRET|PASSWORD)", text("Dockerfile"), re.M)
    assert not re.search(r"\b[0-9a-f]{64}\b", text("docker-compose.yml"))


def test_the_container_writes_nowhere_but_to_tmp() -> None:
    last_stage = text("Dockerfile").rpartition("\nFROM ")[2]
    assert "PYTHONDONTWRITEBYTECODE=1" in last_stage
    assert re.search(r"\bHOME=/tmp\b", last_stage)
    assert "VOLUME" not in last_stage


# --- docker-compose, nginx, Prometheus


def test_compose_runs_two_equal_replicas_that_are_not_published(replicas: dict) -> None:
    assert sorted(replicas) == ["atelier-1", "atelier-2"]
    assert replicas["atelier-1"] == replicas["atelier-2"]
    assert "ports" not in replicas["atelier-1"]


def test_only_nginx_is_published_beyond_this_machine(compose: dict) -> None:
    published = {n: b["ports"] for n, b in compose["services"].items() if "ports" in b}
    assert set(published) == {"nginx", "prometheus", "grafana"}
    for name in ("prometheus", "grafana"):
        assert all(port.startswith("127.0.0.1:") for port in published[name])


@pytest.mark.parametrize("service", ["atelier-1", "atelier-2", "nginx", "prometheus", "grafana"])
def test_every_container_is_hardened_bounded_and_restarted(compose: dict, service: str) -> None:
    body = compose["services"][service]
    assert body["read_only"] is True
    assert body["cap_drop"] == ["ALL"]
    assert body["security_opt"] == ["no-new-privileges:true"]
    assert body["restart"] == "unless-stopped"
    assert any(mount.startswith("/tmp:") for mount in body["tmpfs"])  # noqa: S108
    assert {"cpus", "memory", "pids"} <= set(body["deploy"]["resources"]["limits"])
    assert "build" in body or "healthcheck" in body  # the replicas' is the image's own


@pytest.mark.parametrize("name", ["API_KEYS", "ADMIN_KEYS", "RATE_LIMIT"])
def test_compose_takes_keys_from_its_own_environment(replicas: dict, name: str) -> None:
    """Hashes do not belong into a file of the repository."""
    variable = ENV_PREFIX + name
    assert replicas["atelier-1"]["environment"][variable] == f"${{{variable}:-}}"


def test_every_file_that_compose_mounts_is_there(compose: dict) -> None:
    mounts = [v for body in compose["services"].values() for v in body.get("volumes", ())]
    files = [mount.split(":")[0] for mount in mounts if mount.startswith("./")]
    assert files
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_every_file_for_nginx_prometheus_and_grafana_is_mounted_or_tests_one_that_is(
    compose: dict,
) -> None:
    mounts = [v for body in compose["services"].values() for v in body.get("volumes", ())]
    mounted = {ROOT / mount.split(":")[0] for mount in mounts if mount.startswith("./")}
    folders = [ROOT / "deploy" / name for name in ("nginx", "prometheus", "grafana")]
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    assert [f.name for f in files if not {f, *f.parents} & mounted] == ["alerts_test.yml"]


def test_volumes_that_hold_data_are_declared_and_used(compose: dict) -> None:
    mounts = [v for body in compose["services"].values() for v in body.get("volumes", ())]
    assert {m.split(":")[0] for m in mounts if not m.startswith("./")} == set(compose["volumes"])


def test_docker_compose_reads_the_file() -> None:
    command = ["docker", "compose"]
    known = shutil.which("docker") and subprocess.run(
        [*command, "version"], capture_output=True, check=False
    )
    if not known or known.returncode:
        pytest.skip("docker compose is not installed")
    read = subprocess.run(
        [*command, "config", "--quiet"], cwd=ROOT, capture_output=True, check=False, text=True
    )
    assert read.returncode == 0, read.stderr


def test_grafana_has_no_account_and_lets_whoever_reaches_it_only_look(compose: dict) -> None:
    environment = compose["services"]["grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "true"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"


def test_nginx_balances_exactly_the_replicas_of_compose(replicas: dict) -> None:
    servers = re.findall(r"server (\S+) ", upstream_block())
    assert servers == [f"{name}:{setting('port')}" for name in sorted(replicas)]


def test_prometheus_scrapes_exactly_the_replicas_of_compose(replicas: dict) -> None:
    config = yaml.safe_load(text("deploy/prometheus/prometheus.yml"))
    jobs = {job["job_name"]: job["static_configs"] for job in config["scrape_configs"]}
    targets = [target for group in jobs["atelier"] for target in group["targets"]]
    assert targets == [f"{name}:{setting('port')}" for name in sorted(replicas)]


def test_nginx_lets_the_service_refuse_a_body_that_is_a_little_too_large(nginx: dict) -> None:
    assert quantity(nginx["client_max_body_size"][0], BYTES) > setting("max_body_bytes")


def test_nginx_waits_longer_than_the_service_does(nginx: dict) -> None:
    for directive in ("proxy_read_timeout", "proxy_send_timeout"):
        assert quantity(nginx[directive][0], SECONDS) > setting("request_timeout_s")


def test_nginx_cuts_slow_clients_no_later_than_the_service_would(nginx: dict) -> None:
    for directive, name in (
        ("client_header_timeout", "head_timeout_s"),
        ("client_body_timeout", "request_timeout_s"),
        ("send_timeout", "send_timeout_s"),
    ):
        assert quantity(nginx[directive][0], SECONDS) <= setting(name)


def test_nginx_closes_idle_connections_before_the_service_does() -> None:
    match = re.search(r"keepalive_timeout (\w+);", upstream_block())
    assert match
    assert quantity(match[1], SECONDS) < setting("keep_alive_s")


def test_nginx_tries_again_as_long_as_a_request_may_wait_but_not_after_its_own_time(
    nginx: dict[str, list[str]],
) -> None:
    again_s = quantity(nginx["proxy_next_upstream_timeout"][0], SECONDS)
    assert setting("request_timeout_s") < again_s
    assert again_s < quantity(nginx["proxy_read_timeout"][0], SECONDS)


def test_nginx_ends_before_docker_kills_it(nginx: dict[str, list[str]], compose: dict) -> None:
    grace_s = quantity(compose["services"]["nginx"]["stop_grace_period"], SECONDS)
    assert quantity(nginx["worker_shutdown_timeout"][0], SECONDS) < grace_s


def test_a_full_replica_never_takes_itself_out_of_the_upstream(nginx: dict) -> None:
    """Otherwise a burst that fills every replica is answered 502, not 429 with Retry-After."""
    assert "http_429" in nginx["proxy_next_upstream"][0].split()
    assert re.findall(r"server .* max_fails=(\d+)", upstream_block()) == ["0", "0"]


def test_nginx_tells_the_replicas_who_asks_and_believes_no_one_else(
    nginx: dict[str, list[str]], replicas: dict
) -> None:
    """A client's own X-Forwarded-For, passed on, would be another caller for each request."""
    assert "X-Forwarded-For $remote_addr" in nginx["proxy_set_header"]
    assert replicas["atelier-1"]["environment"]["FORWARDED_ALLOW_IPS"] == "*"
    assert "ports" not in replicas["atelier-1"]


def test_nginx_keeps_the_request_ids_that_the_service_keeps() -> None:
    assert f'"~^{REQUEST_ID_PATTERN.pattern}$"' in text("deploy/nginx/nginx.conf")


@pytest.mark.parametrize("path", ["/metrics", "/admin"])
def test_nginx_does_not_publish(path: str) -> None:
    assert re.search(
        rf"location \^~ {path} \{{\s+return 404;\s+\}}", text("deploy/nginx/nginx.conf")
    )


def test_docker_waits_for_the_drain_and_the_requests_in_flight(replicas: dict) -> None:
    body = replicas["atelier-1"]
    drain = float(body["environment"].get(f"{ENV_PREFIX}DRAIN_S", setting("drain_s")))
    bound = drain + setting("shutdown_timeout_s") + CLOSE_WITHIN_S
    assert quantity(body["stop_grace_period"], SECONDS) > bound


def test_memory_in_compose_holds_all_that_is_bounded(replicas: dict) -> None:
    """At 25 bytes a pixel, as if every picture were the most hostile of those measured."""
    body = replicas["atelier-1"]
    passes = int(body["environment"][f"{ENV_PREFIX}MEMORY_BUDGET_MIB"]) * 2**20
    pictures = 25 * setting("max_in_flight_pixels")
    libraries = 512 * 2**20
    limit = quantity(body["deploy"]["resources"]["limits"]["memory"], BYTES)
    assert passes + pictures + setting("max_body_memory_bytes") + libraries <= limit


def test_threads_in_compose_are_as_many_as_the_limit_of_cpus(replicas: dict) -> None:
    body = replicas["atelier-1"]
    cpus = float(body["deploy"]["resources"]["limits"]["cpus"])
    for name in ("MODEL_THREADS", "CODEC_THREADS"):
        assert int(body["environment"][ENV_PREFIX + name]) == cpus


def test_the_ci_script_is_executable_and_runs_the_make_targets() -> None:
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111
    assert {"make lint", "make test", "make test-deploy", "make test-page"} <= set(
        re.findall(r"^make [\w-]+", text(".ci/run"), re.M)
    )


@pytest.mark.parametrize(
    ("report", "status", "said"),
    [
        ("", 3, "SKIPPED"),
        ('{"dependencies": [{"name": "a", "skip_reason": "not found"}]}', 3, "SKIPPED"),
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', 0, "0 known"),
        (
            """{"dependencies": [
                {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]},
                {"name": "b", "skip_reason": "not found"}
            ]}""",
            1,
            "vulnerable: a 1: PYSEC-1, fixed in 2",
        ),
    ],
    ids=["no report", "no data", "sound", "vulnerable"],
)
def test_the_audit_fails_for_a_known_vulnerability_and_for_nothing_else(
    report: str, status: int, said: str
) -> None:
    ended = subprocess.run(
        [sys.executable, str(ROOT / ".ci/audit.py")],
        input=report,
        capture_output=True,
        check=False,
        text=True,
    )
    assert ended.returncode == status, ended.stderr
    assert said in ended.stdout


def test_the_ci_script_audits_the_pins() -> None:
    assert re.search(r"^check_dependencies$", text(".ci/run"), re.MULTILINE)
    assert "audit_pins constraints.txt" in text(".ci/run")


# --- the picture of the house


def test_the_architecture_page_lists_exactly_the_modules_there_are() -> None:
    listed: set[str] = set()
    package = folder = ""
    rooms = text("docs/architecture.md").partition("## Rooms")[2].partition("```text")[2]
    for line in rooms.partition("```")[0].splitlines():
        name, _, meaning = line.strip().partition(" ")
        if line and not line.startswith(" "):
            package = folder = name
        elif name.endswith("/"):
            folder = package + name
        elif name.endswith(".py") and not meaning.strip().startswith("planned"):
            listed.add((folder if line.startswith("    ") else package) + name)
    modules = {
        path.relative_to(ROOT).as_posix()
        for room in ("service", "model_zoo", "trainer")
        for path in (ROOT / room).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert listed == modules
