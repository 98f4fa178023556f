# The CPU service. Build: make image. Run:
#   docker run --rm --read-only --tmpfs /tmp --publish 50051:50051 --volume $PWD/models:/models:ro taxon:service-cpu --insecure
# Instead of --insecure, which encrypts nothing: --tls-cert and --tls-key; then see docs/security.md for the health check.
FROM python:3.11-slim AS build
WORKDIR /source
RUN python3 -m venv /opt/taxon
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY taxon taxon
COPY service service
COPY training training
RUN /opt/taxon/bin/pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt '.[cpu,signing]' \
    && /opt/taxon/bin/pip uninstall --yes pip setuptools \
    && find /opt/taxon -name __pycache__ -prune -exec rm -r {} +

FROM python:3.11-slim AS service-cpu
RUN useradd --system --uid 10001 --no-create-home taxon
COPY --from=build /opt/taxon /opt/taxon
ENV PATH=/opt/taxon/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    TAXON_MODELS=/models TAXON_DEVICE=cpu TAXON_LISTEN=[::]:50051
USER 10001
EXPOSE 50051
VOLUME /models
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["taxon", "health", "--server", "localhost:50051"]
ENTRYPOINT ["taxon", "serve"]
