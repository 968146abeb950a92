# Flipside with all that it needs, on a CPU or with CUDA: docs/how-to/install.md says how to build and run it.
FROM python:3.11-slim-bookworm

# Which builds of PyTorch: cpu, or a version of CUDA such as cu130.
ARG TORCH=cpu

# git and make as the base image's Debian has them.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /flipside

# All versions are those of the lock; its hashes are left out, as they are those of PyTorch's builds on PyPI.
COPY requirements.txt requirements.lock ./
RUN pip install --no-cache-dir uv==0.13.8 \
    && uv pip install --system --no-cache --torch-backend "${TORCH}" --no-verify-hashes \
        --constraint requirements.lock --requirement requirements.txt

# Editable: a checkout that is mounted at /flipside is the code that runs.
COPY . .
RUN uv pip install --system --no-cache --no-deps --editable .

# For whatever user `docker run --user` names.
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1 DVC_NO_ANALYTICS=true
CMD ["flipside", "--help"]
