# One image for every process of an installation; docker-compose.yml says which command makes which.
FROM python:3.13-slim AS packages
# requirements-otel.lock has OpenTelemetry besides: docker compose build --build-arg LOCK=requirements-otel.lock
ARG LOCK=requirements.lock
RUN python -m venv /venv
COPY requirements*.lock /tmp/
RUN /venv/bin/pip install --no-cache-dir --no-input --disable-pip-version-check \
    --require-hashes --only-binary :all: -r /tmp/$LOCK

FROM python:3.13-slim
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DJANGO_SETTINGS_MODULE=console.settings \
    CONSOLE_DATA_DIR=/data \
    CONSOLE_JOURNAL_DIR=/journal \
    CONSOLE_SPOOL_DIR=/spool \
    CONSOLE_STATIC_ROOT=/app/staticfiles
# A new named volume takes the owner of the directory it is mounted on.
RUN useradd --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin console \
    && install -d -o console -g console -m 0750 /data /journal /spool
COPY --from=packages /venv /venv
WORKDIR /app
COPY . .
# The key is of this one step: no secret is in the image, and no process starts without one of its own.
RUN python -m compileall -q console llmops \
    && CONSOLE_DATA_DIR=/tmp CONSOLE_SECRET_KEY=for-collecting-static-files-and-nothing-else \
       python manage.py collectstatic --noinput
USER console
EXPOSE 8000
CMD ["granian", "--interface", "asgi", "--host", "0.0.0.0", "--port", "8000", "--workers", "1", "--loop", "uvloop", "--no-ws", "--log-level", "warning", "--workers-kill-timeout", "10", "console.asgi_console:application"]
