# Three images: service-cpu, service-gpu, training. Build: make image. More: docs/deploying.md.
#   docker run --rm --read-only --tmpfs /tmp --publish 50051:50051 --volume $PWD/models:/models:ro taxon:service-cpu --insecure
# Instead of --insecure, which encrypts nothing: --tls-cert and --tls-key; then see docs/security.md for the health check.
FROM debian:bookworm-slim AS python
# Debian's newest are wanted, which mend what is known.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY constraints.txt ./
# Everything from a registry has the version that constraints.txt says, what builds the wheel too.
ENV PIP_CONSTRAINT=/source/constraints.txt PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# What installs and lists is in none of the images.
RUN python3.11 -m venv /opt/tools \
    && /opt/tools/bin/pip install cyclonedx-bom==7.5.0 \
    && python3.11 -m venv --without-pip /opt/taxon
COPY pyproject.toml README.md LICENSE ./
COPY taxon taxon
COPY service service
ENV PATH=/opt/taxon/bin:$PATH

# Below the services: Debian's Python with the libraries that it loads and nothing else, no shell either. Scanners find the
# packages in status.d, as in distroless images.
FROM python AS root
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /packages
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get download base-files libbz2-1.0 libc6 libexpat1 libffi8 libgcc-s1 liblzma5 libpython3.11-minimal \
        libpython3.11-stdlib libsqlite3-0 libssl3 libstdc++6 libuuid1 netbase python3.11-minimal tzdata zlib1g \
    && mkdir -p /root-fs/var/lib/dpkg/status.d /root-fs/etc/ssl/certs /root-fs/models \
    && for package in *.deb; do \
        dpkg-deb --extract "$package" /root-fs; \
        dpkg-deb --field "$package" > "/root-fs/var/lib/dpkg/status.d/${package%%_*}"; \
    done \
    && cp /etc/ssl/certs/ca-certificates.crt /root-fs/etc/ssl/certs/ \
    && echo 'taxon:x:10001:10001::/nonexistent:/nonexistent' > /root-fs/etc/passwd \
    && echo 'taxon:x:10001:' > /root-fs/etc/group \
    && rm -rf /root-fs/usr/share/{doc,lintian,man} /root-fs/usr/lib/python3.11/{ensurepip,lib2to3,pydoc_data} \
    && python3.11 -m compileall -q -s /root-fs /root-fs/usr/lib/python3.11

FROM python AS service-cpu-build
ARG EXTRAS=otel,signing PACKAGES=
# Several packages are several words.
# hadolint ignore=SC2086
RUN rm taxon/training \
    && /opt/tools/bin/pip --python /opt/taxon/bin/python install ".[cpu,$EXTRAS]" $PACKAGES \
    && /opt/tools/bin/cyclonedx-py environment --output-reproducible --output-file /opt/taxon/sbom.cdx.json /opt/taxon

FROM python AS service-gpu-build
ARG EXTRAS=otel,signing PACKAGES=
# Several packages are several words.
# hadolint ignore=SC2086
RUN rm taxon/training \
    && /opt/tools/bin/pip --python /opt/taxon/bin/python install ".[gpu,$EXTRAS]" $PACKAGES \
    && /opt/tools/bin/cyclonedx-py environment --output-reproducible --output-file /opt/taxon/sbom.cdx.json /opt/taxon
# What ONNX Runtime never loads of CUDA's wheels.
WORKDIR /opt/taxon/lib/python3.11/site-packages/nvidia
RUN rm -r cu13/include cudnn/include cu13/lib/*.alt.so* cu13/lib/libcufftw.* cu13/lib/libnvblas.*

FROM scratch AS service
COPY --from=root /root-fs /
ENV PATH=/opt/taxon/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 TAXON_MODELS=/models TAXON_LISTEN=[::]:50051
USER 10001:10001
EXPOSE 50051
VOLUME /models
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["taxon", "health"]
ENTRYPOINT ["taxon", "serve"]
ARG VERSION=0 REVISION=unknown
LABEL org.opencontainers.image.description="Serves image classifiers over gRPC." \
    org.opencontainers.image.licenses=Apache-2.0 \
    org.opencontainers.image.version=$VERSION \
    org.opencontainers.image.revision=$REVISION

FROM service AS service-cpu
LABEL org.opencontainers.image.title="taxon service-cpu"
ENV TAXON_DEVICE=cpu
COPY --from=service-cpu-build /opt/taxon /opt/taxon

FROM service AS service-gpu
LABEL org.opencontainers.image.title="taxon service-gpu"
# What NVIDIA's container runtime brings in: the driver's libraries for computing, and nvidia-smi's.
ENV TAXON_DEVICE=cuda NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=service-gpu-build /opt/taxon /opt/taxon

# Trains and exports, on GPUs where there are some.
FROM python AS training
COPY training training
RUN /opt/tools/bin/pip --python /opt/taxon/bin/python install '.[gpu,search,signing,tensorboard,training]' \
    && /opt/tools/bin/cyclonedx-py environment --output-reproducible --output-file /opt/taxon/sbom.cdx.json /opt/taxon \
    && useradd --system --uid 10001 --no-create-home taxon
ENV PYTHONUNBUFFERED=1 HOME=/tmp NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /data
ENTRYPOINT ["taxon"]
CMD ["train", "--help"]
ARG VERSION=0 REVISION=unknown
LABEL org.opencontainers.image.title="taxon training" \
    org.opencontainers.image.description="Fine-tunes image classifiers and exports them with proof." \
    org.opencontainers.image.licenses=Apache-2.0 \
    org.opencontainers.image.version=$VERSION \
    org.opencontainers.image.revision=$REVISION
