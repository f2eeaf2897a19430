# The service with its zoo:  docker build -t atelier .
#
# CPU, small:  --build-arg TORCH_INDEX_URL=<the PyTorch project's index of CPU wheels>
#     Without it torch comes from pip's usual index, whose x86-64 wheel brings the CUDA libraries
#     along: it runs on a CPU just as well, in an image some gigabytes larger.
# CUDA:        --build-arg VARIANT=cuda, then `docker run --gpus all`
#     torch's wheels carry their own CUDA libraries, so the base stays slim; the driver and the
#     NVIDIA container toolkit are the host's part.
# Ray:         --build-arg EXTRAS="tracing cluster": the nodes of a cluster (docs/deployment.md)
# The base needs what python:*-slim has: `python` and `pip` on the PATH, and useradd.
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS dependencies
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# Without pip: the finished image has nothing to install with. The base's own pip fills it.
RUN python -m venv --without-pip /opt/atelier

COPY constraints.txt ./
ARG TORCH_INDEX_URL=
# --no-deps: that index holds torch's dependencies too, but not in the pinned versions.
# Test programs and headers for C++ are a quarter of torch, and nothing here compiles against it;
# its import looks for that one program.
RUN pip --python /opt/atelier/bin/python install --no-deps \
        ${TORCH_INDEX_URL:+--index-url "${TORCH_INDEX_URL}"} -c constraints.txt torch \
    && cd /opt/atelier/lib/python3.*/site-packages/torch && rm -rf include test \
    && find bin -type f ! -name torch_shm_manager -delete

# A CPU build of torch in an image meant for CUDA would fail only at its first start.
ARG VARIANT=cpu
RUN case "${VARIANT}" in \
        cpu) ;; \
        cuda) python -I -c "import runpy, sys; runpy.run_path(sys.argv[1])['cuda'] or sys.exit( \
'VARIANT=cuda, but this torch is a CPU build: see TORCH_INDEX_URL')" \
            /opt/atelier/lib/python3.*/site-packages/torch/version.py ;; \
        *) echo "VARIANT is cpu or cuda, not ${VARIANT}" >&2; exit 1 ;; \
    esac

# The dependencies alone, so that a change of code leaves this layer as it is.
ARG EXTRAS=tracing
COPY pyproject.toml ./
RUN python -c "import sys, tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
extras = [project['optional-dependencies'][name] for name in sys.argv[1:]]; \
print(*project['dependencies'], *sum(extras, []), sep='\n')" "${VARIANT}" ${EXTRAS} > requirements.txt \
    && pip --python /opt/atelier/bin/python install -c constraints.txt -r requirements.txt


FROM dependencies AS package
COPY README.md LICENSE ./
COPY model_zoo model_zoo
COPY trainer trainer
COPY service service
# Into a root of its own: an upgrade of the code then moves some megabytes, not the dependencies.
RUN pip --python /opt/atelier/bin/python install --no-deps --root /package .


FROM ${BASE_IMAGE}
ARG VARIANT=cpu
# A name for the number: torch asks for the user's name when it looks for its caches.
# The base's own pip goes, too, and the copy of it that `python -m venv` would unpack.
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin atelier \
    && ensurepip=$(python -c "import ensurepip, os; print(os.path.dirname(ensurepip.__file__))") \
    && pip uninstall --yes --no-cache-dir --root-user-action ignore pip \
    && rm -rf "${ensurepip}"
COPY --from=dependencies /opt/atelier /opt/atelier
COPY --from=package /package/opt/atelier /opt/atelier

# MALLOC_ARENA_MAX: glibc keeps an arena for each thread, and pictures of many sizes fill them all.
ENV PATH=/opt/atelier/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MALLOC_ARENA_MAX=2 \
    HOME=/tmp \
    ATELIER_HOST=0.0.0.0 \
    ATELIER_DEVICE=${VARIANT}
# `python -m` looks in the working directory first; here nobody but root can put anything.
# The root may be mounted read-only; only /tmp is written to.
WORKDIR /
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM

# /readyz, not /livez: a hung device or a dead batch loop shows only there, and depends_on waits for
# it. http.client, because urllib would send even this through a proxy named in the environment.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('ATELIER_PORT', '8000')), timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]

CMD ["python", "-m", "service"]
