# Two images: `gate` (measure, judge, quantize, prune; no PyTorch) and `full` (also export from PyTorch).
#
#   docker build --target gate --tag onnxpress:gate .
#
# The base needs Debian's or Ubuntu's apt, or a Python >= 3.11 with venv.
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BASE_IMAGE} AS base
ARG DEBIAN_FRONTEND=noninteractive
RUN command -v python3 \
    || { apt-get update && apt-get install --yes --no-install-recommends python3 \
         && rm -rf /var/lib/apt/lists/* /var/cache/apt/*; }


FROM base AS build
ARG DEBIAN_FRONTEND=noninteractive
RUN python3 -c 'import ensurepip' 2>/dev/null \
    || { apt-get update && apt-get install --yes --no-install-recommends python3-venv; }
# pip lives in an environment of its own, so that none is in the image.
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/onnxpress
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_CONSTRAINT=/src/constraints.txt
WORKDIR /src
COPY . .
# The images are for CPUs: plain onnxruntime, at the same version, is 270 MB smaller than the wheel with CUDA.
RUN sed -i 's/onnxruntime-gpu/onnxruntime/' pyproject.toml constraints.txt
ARG PIP_ARGS=
RUN /opt/build/bin/pip install ${PIP_ARGS} hatchling \
    && /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .


FROM build AS build-gate
ARG PIP_ARGS=
RUN /opt/build/bin/pip --python /opt/onnxpress/bin/python install ${PIP_ARGS} /wheels/*.whl


FROM base AS runtime
LABEL org.opencontainers.image.title="onnxpress" \
      org.opencontainers.image.description="Compress, measure, price and gate ONNX models" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --user-group --no-log-init --home-dir /work --create-home onnxpress
# HOME is writable for every user, so that the image also runs with --user. onnxruntime would report to its vendor.
ENV PATH=/opt/onnxpress/bin:${PATH} \
    HOME=/tmp \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /work
USER 10001:10001
ENTRYPOINT ["compress"]
CMD ["--help"]


FROM runtime AS gate
COPY --from=build-gate /opt/onnxpress /opt/onnxpress


FROM build-gate AS build-full
# PyTorch's CPU build; the default one brings the CUDA libraries.
ARG PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
RUN /opt/build/bin/pip --python /opt/onnxpress/bin/python install ${PIP_ARGS} "$(echo /wheels/*.whl)[torch]"


FROM runtime AS full
COPY --from=build-full /opt/onnxpress /opt/onnxpress
