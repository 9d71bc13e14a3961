# syntax=docker/dockerfile:1

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
RUN python -m venv /app
COPY requirements.lock ./
RUN /app/bin/pip install --require-hashes -r requirements.lock
COPY requirements-build.lock ./
RUN python -m venv /build && /build/bin/pip install --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY broadcaster broadcaster
COPY routes routes
COPY taskhub taskhub
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /app/bin/pip install --no-deps --no-index /wheels/*.whl \
    && python -m compileall -q /app

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin taskhub \
    && install -d -o taskhub -g taskhub -m 0700 /data
COPY --from=build /app /app
COPY config/production.toml /etc/taskhub/taskhub.toml
ENV PATH=/app/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    TASKHUB_CONFIG=/etc/taskhub/taskhub.toml TASKHUB_DATA_DIR=/data
USER taskhub
WORKDIR /
# The only place that is written to: the rest of the root may be mounted read-only.
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 CMD ["python", "-c", "import os, sys, urllib.request; sys.exit(urllib.request.urlopen('http://127.0.0.1:' + (os.environ.get('TASKHUB_PORT') or os.environ.get('PORT') or '8000') + '/healthz', timeout=2).status != 200)"]
ENTRYPOINT ["taskhub"]
CMD ["serve"]
