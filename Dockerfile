# The deployed image: the service without the embedded stack, with what exports traces where they are asked for. Hashed dependencies, no build tools, no root.
FROM python:3.13-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /app
COPY requirements.txt /tmp/requirements.txt
RUN /app/bin/pip install --require-hashes --only-binary :all: --requirement /tmp/requirements.txt
COPY . /src
# The wheel is built apart from what is installed, so that the build tools stay in this stage.
RUN python -m pip wheel --no-deps --wheel-dir /wheel /src \
    && /app/bin/pip install --no-deps /wheel/*.whl \
    && /app/bin/pip uninstall --yes pip

FROM python:3.13-slim
RUN python -m pip uninstall --yes pip \
    && useradd --system --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin integrations
COPY --from=build /app /app
ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 INTEGRATIONS_LOG_FORMAT=json
USER 10001:10001
WORKDIR /app
EXPOSE 8700 8701
ENTRYPOINT ["integrations"]
CMD ["worker"]
