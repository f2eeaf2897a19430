"""The image, built by the Dockerfile and run as docker-compose.yml runs a replica.

Buildah and Podman do it, on a Debian 12 that debootstrap makes, since no registry may be in reach.
Not shown: the official base image, a Docker engine, published ports and the networks of compose
(containers share the network of this machine, or have none), and the CUDA variant beyond its check.
"""

from __future__ import annotations

import importlib.metadata
import io
import os
import re
import runpy
import stat
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import torch
from packaging.utils import canonicalize_name
from packaging.version import Version
from PIL import Image

from benchmarks.load import make_form, make_jpeg, saturate
from tests.conftest import TINY_STYLES
from tests.deploy.containers import Container, Host, Load
from tests.deploy.images import (
    BASE,
    ROOT,
    PipConfiguration,
    Store,
    UnavailableError,
    build,
    make_base,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TAG = "localhost/atelier"
USER = 10001
PACKAGES = ("model_zoo", "service", "trainer")
COMPILERS = re.compile(r"(.*-)?(cc|c\+\+|gcc|g\+\+|clang|ld|make|cmake|ninja|nvcc|rustc)(-[\d.]+)?")
# With the CPU build of torch; the CUDA libraries are several times this.
MOST_BYTES = 1500 * 10**6
MOST_CODE_BYTES = 64 * 10**6
DRAIN_S = 4


@dataclass(frozen=True, slots=True)
class Built:
    """The image, its files under ``root`` as they will be in a container."""

    store: Store
    pip: PipConfiguration
    root: Path
    base_s: float
    build_s: float

    @property
    def site(self) -> Path:
        """Where the packages are."""
        (site,) = self.root.glob("opt/atelier/lib/python3.*/site-packages")
        return site


@pytest.fixture(scope="session")
def give_up(request: pytest.FixtureRequest) -> Callable[[UnavailableError], None]:
    """Skip what this machine cannot do, or fail with ``--complete``."""

    def give_up(error: UnavailableError) -> None:
        if request.config.getoption("--complete"):
            pytest.fail(str(error))
        pytest.skip(str(error))

    return give_up


@pytest.fixture(scope="session")
def image(
    find_tool: Callable[[str, str], str], give_up: Callable[[UnavailableError], None]
) -> Iterator[Built]:
    programs = {name: find_tool(name, name) for name in ("buildah", "podman", "debootstrap")}
    # A short path: the sockets of containers are in it.
    folder = Path(tempfile.mkdtemp(prefix="atelier-"))
    store = Store(folder, programs["buildah"], programs["podman"])
    try:
        pip = PipConfiguration.of_this_machine(folder)
        started = time.monotonic()
        try:
            make_base(store, programs["debootstrap"], ["/etc/pip.conf", *pip.paths])
        except UnavailableError as error:
            give_up(error)
        made_base = time.monotonic()
        try:
            build(store, pip, TAG)
        except subprocess.CalledProcessError as error:
            pytest.fail(f"the image cannot be built: {error.stderr[-3000:]}")
        built = time.monotonic()
        root = Path(store.podman("image", "mount", TAG).strip())
        yield Built(store, pip, root, made_base - started, built - made_base)
        store.podman("image", "umount", "--force", TAG)
    finally:
        store.remove()


@pytest.fixture(scope="session")
def host(image: Built, give_up: Callable[[UnavailableError], None]) -> Host:
    try:
        return Host.find(image.store, BASE)
    except UnavailableError as error:
        give_up(error)
        raise


@pytest.fixture(scope="session")
def zoo(make_zoo: Callable[[Path], Path]) -> Iterator[Path]:
    """A tiny zoo that others than its owner may read, as a volume has to be."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield make_zoo(Path(folder))


@pytest.fixture(scope="session")
def shipped(host: Host) -> Iterator[Container]:
    """The image as it is, but for address and port, under the limits of a replica."""
    with host.start(TAG) as container:
        yield container


# --- what is in it


def test_the_image_is_no_larger_than_it_must_be_and_a_change_of_code_moves_little(
    image: Built, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = image.store.layers(TAG)
    with capsys.disabled():
        print(f"\nbase made in {image.base_s:.0f} s, image built in {image.build_s:.0f} s")  # noqa: T201
        for layer in layers:
            print(f"{layer.size_bytes / 1e6:8.1f} MB  {layer.made_by[:80]}")  # noqa: T201
        print(f"{sum(layer.size_bytes for layer in layers) / 1e6:8.1f} MB in all")  # noqa: T201
    assert layers[-1].size_bytes < MOST_CODE_BYTES
    assert sum(layer.size_bytes for layer in layers) < MOST_BYTES or torch.version.cuda


def test_the_packages_are_in_the_versions_of_constraints_txt(image: Built) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = {
        canonicalize_name(name): Version(version)
        for name, version in re.findall(r"^([\w.-]+)==(\S+)$", lines, re.MULTILINE)
    }
    installed = {
        canonicalize_name(package.name): Version(package.version)
        for package in importlib.metadata.distributions(path=[str(image.site)])
    }
    assert {"torch", "openvino", "opentelemetry-sdk", "uvicorn"} <= set(installed)
    assert "pytest" not in installed
    del installed["atelier"]
    # Of torch a build may be added, as +cpu.
    differ = {n: v for n, v in installed.items() if Version(v.public) != pins.get(n)}
    assert differ == {}


def test_torch_is_the_build_that_pip_takes_on_this_machine(image: Built) -> None:
    version = runpy.run_path(str(image.site / "torch/version.py"))
    assert version["__version__"] == torch.__version__
    assert version["cuda"] == torch.version.cuda


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_there_with_its_data_and_nothing_else(image: Built, package: str) -> None:
    source, installed = ROOT / package, image.site / package

    def files(folder: Path) -> dict[str, bytes]:
        paths = (p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    there, here = files(installed), files(source)
    assert set(there) == set(here)
    data = [name for name in here if not name.endswith(".py")]
    assert data
    assert [name for name in data if here[name] != there[name]] == []


def test_no_file_belongs_to_the_user_or_may_be_written_by_it(image: Built) -> None:
    faults = []
    for path in image.root.rglob("*"):
        status = path.lstat()
        mode = status.st_mode
        everybodys_own = stat.S_ISCHR(mode) or (stat.S_ISDIR(mode) and mode & stat.S_ISVTX)
        writable = mode & stat.S_IWOTH and not stat.S_ISLNK(mode) and not everybodys_own
        if writable or status.st_uid != 0 or status.st_gid == USER:
            faults.append(f"{path} {stat.filemode(mode)} {status.st_uid}:{status.st_gid}")
    assert faults == []


def test_there_is_no_compiler_no_pip_no_test_and_no_leftover_of_the_build(image: Built) -> None:
    paths = [path.relative_to(image.root) for path in image.root.rglob("*")]
    programs = [p for p in paths if p.parent.name in {"bin", "sbin"}]
    assert [p for p in programs if COMPILERS.fullmatch(p.name)] == []
    installers = re.compile(r"pip[\d.]*|pip-.*\.dist-info|ensurepip|.*\.whl")
    # pip's own file of settings is mounted here, which makes folders of that name.
    found = [p for p in paths if installers.fullmatch(p.name) and p.parts[0] != "etc"]
    assert found == []
    assert {"torch", "service"} <= {p.name for p in image.site.iterdir()}
    assert {"tests", "benchmarks", "docs"}.isdisjoint(p.name for p in image.site.iterdir())
    for folder in ("src", "package", "root/.cache"):
        assert not (image.root / folder).exists()
    assert [*(image.root / "tmp").iterdir(), *(image.root / "var/tmp").iterdir()] == []
    compiled = [p for p in paths if p.suffix == ".pyc" and p.parts[:2] == ("opt", "atelier")]
    sources = {p.parent.parent / f"{p.name.partition('.')[0]}.py" for p in compiled}
    assert sources <= set(paths)


def test_a_build_for_cuda_is_refused_where_torch_is_a_cpu_build(image: Built) -> None:
    if torch.version.cuda:
        pytest.skip("pip takes a CUDA build of torch on this machine")
    said = refusal(image, VARIANT="cuda")
    assert "VARIANT=cuda, but this torch is a CPU build: see TORCH_INDEX_URL" in said


def test_a_variant_that_is_not_there_is_refused(image: Built) -> None:
    assert "VARIANT is cpu or cuda, not tpu" in refusal(image, VARIANT="tpu")


def refusal(image: Built, **arguments: str) -> list[str]:
    """The lines of a build that must fail; the step that fails is one of them, as it is written."""
    with pytest.raises(subprocess.CalledProcessError) as refused:
        build(image.store, image.pip, "localhost/refused", **arguments)
    said: str = refused.value.stderr
    return said.splitlines()


# --- how it runs


def test_the_service_is_the_first_process_without_root_and_capabilities(
    shipped: Container,
) -> None:
    assert shipped.run("cat", "/proc/1/cmdline").split("\0")[:3] == ["python", "-m", "service"]
    status = dict(
        line.split(":\t", 1) for line in shipped.run("cat", "/proc/1/status").splitlines()
    )
    assert status["Uid"].split() == status["Gid"].split() == [str(USER)] * 4
    assert status["Groups"].split() in ([], [str(USER)])
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0
    assert status["NoNewPrivs"] == "1"


def test_only_tmp_can_be_written_to(shipped: Container) -> None:
    look = (
        "import os; skip = {'/proc', '/sys', '/dev'}\n"
        "for folder, names, files in os.walk('/'):\n"
        "    names[:] = [n for n in names if os.path.join(folder, n) not in skip]\n"
        "    paths = [folder, *(os.path.join(folder, n) for n in files)]\n"
        "    print(*(p for p in paths if os.access(p, os.W_OK)), sep='\\n')\n"
    )
    writable = {Path(path) for path in shipped.run("python", "-c", look).split()}
    root_is_read_only = "import os; print(os.statvfs('/').f_flag & os.ST_RDONLY)"
    assert shipped.run("python", "-c", root_is_read_only).strip() == str(os.ST_RDONLY)
    tmp = Path("/tmp")  # noqa: S108
    assert tmp in writable
    assert [path for path in writable if not path.is_relative_to(tmp)] == []
    with pytest.raises(subprocess.CalledProcessError, match="exit status 1"):
        shipped.run("touch", "/opt/atelier/new")


def test_a_photograph_comes_back_painted(shipped: Container) -> None:
    photograph = make_jpeg(320, 240)
    call = make_form(photograph, style="starry-night", format="png")
    (answer,), _ = saturate(shipped.url, [call], clients=1, count=1, keep_body=True)
    assert answer.status == 200
    painting = Image.open(io.BytesIO(answer.body))
    assert painting.size == (320, 240)
    before = Image.open(io.BytesIO(photograph)).convert("L").histogram()
    assert painting.convert("L").histogram() != before


def test_the_health_check_succeeds_once_the_service_is_ready(shipped: Container) -> None:
    assert httpx.get(f"{shipped.url}/readyz").status_code == 200
    assert shipped.is_healthy()


def test_modules_are_not_compiled_again_at_every_start(shipped: Container) -> None:
    """Nothing can be kept under a root that is read-only."""
    imports = "import openvino, torch, service.app"
    log = shipped.run("sh", "-c", f"python -v -c '{imports}' 2>&1")
    assert re.search(r"^# \S+torch\S+\.pyc matches \S+torch", log, re.MULTILINE)
    assert re.findall(r"^# code object from '?(/\S+\.py)\b", log, re.MULTILINE) == []


def test_a_container_of_its_own_network_listens_on_every_address(host: Host, zoo: Path) -> None:
    with host.start(TAG, zoo, network="none") as container:
        sockets = container.run("cat", "/proc/net/tcp").splitlines()[1:]
        listening = [line.split()[1] for line in sockets if line.split()[3] == "0A"]
        assert listening == [f"00000000:{8000:04X}"]
        assert container.is_healthy()


def test_sigterm_under_load_loses_no_request_of_a_mounted_zoo(host: Host, zoo: Path) -> None:
    with host.start(TAG, zoo, ATELIER_DRAIN_S=str(DRAIN_S)) as container:
        styles = httpx.get(f"{container.url}/styles").json()["styles"]
        assert [style["id"] for style in styles] == list(TINY_STYLES)
        assert container.is_healthy()
        load = Load(container.url, make_form(make_jpeg(256, 256), style=TINY_STYLES[0]))
        with load.running(clients=4):
            time.sleep(1)
            before = load.outcomes["200"]
            statuses: list[int] = []
            end = threading.Thread(target=lambda: statuses.append(container.end()))
            end.start()
            while httpx.get(f"{container.url}/readyz").status_code == 200:
                time.sleep(0.05)
            assert not container.is_healthy()
            while_draining = load.outcomes["200"]
            end.join(60)
    assert 0 < before < while_draining < load.outcomes["200"]
    assert set(load.outcomes) <= {"200", "429", "503"}, load.outcomes
    assert statuses == [0]


def test_settings_come_from_the_environment(host: Host, zoo: Path) -> None:
    with host.start(TAG, zoo, ATELIER_DEFAULT_MAX_SIDE_PX="64") as container:
        call = make_form(make_jpeg(96, 48), style=TINY_STYLES[1])
        (answer,), _ = saturate(container.url, [call], clients=1, count=1, keep_body=True)
        assert Image.open(io.BytesIO(answer.body)).size == (64, 32)


@pytest.mark.parametrize(
    ("variable", "value", "status"),
    [("ATELIER_DRAIN_S", "soon", 2), ("ATELIER_ZOO", "/nowhere", 1)],
)
def test_a_start_that_fails_says_which_setting_is_wrong(
    host: Host, variable: str, value: str, status: int
) -> None:
    command: list[Any] = host.command(TAG, **{variable: value})
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == status
    assert (variable if status == 2 else value) in result.stderr
    assert "Traceback" not in result.stderr
