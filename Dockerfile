# syntax=docker/dockerfile:1

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
# For what the index has no wheel of on this platform.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# From what changes least to what changes most: another line of ours installs no dependency again.
COPY requirements-build.lock ./
RUN python -m venv /build && /build/bin/pip install --require-hashes -r requirements-build.lock
COPY requirements.lock ./
RUN python -m venv --without-pip /app && /build/bin/pip --python /app/bin/python install --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY broadcaster broadcaster
COPY routes routes
COPY taskhub taskhub
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /build/bin/pip --python /app/bin/python install --no-deps --no-index /wheels/*.whl

FROM python:3.13-slim
# Numbers, for Kubernetes cannot tell from a name that it is not root's, and volumes keep them.
RUN groupadd --system --gid 10001 taskhub \
    && useradd --system --uid 10001 --gid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin taskhub \
    && install -d -o 10001 -g 10001 -m 0700 /data
COPY --from=build /app /app
COPY config/production.toml /etc/taskhub/taskhub.toml
# The only place that is written to, large exports in the making included: the rest of the root may be read-only.
ENV PATH=/app/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    TASKHUB_CONFIG=/etc/taskhub/taskhub.toml TASKHUB_DATA_DIR=/data TMPDIR=/data
USER 10001:10001
WORKDIR /
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["python", "-I", "-c", "import http.client, os; asked = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('TASKHUB_PORT') or os.environ.get('PORT') or 8000), timeout=2); asked.request('GET', '/healthz'); raise SystemExit(asked.getresponse().status != 200)"]
ENTRYPOINT ["taskhub"]
CMD ["serve"]
