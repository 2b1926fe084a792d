# modgpt in a container. The build has not been run as a test: neither image has been built by CI.
#
#   docker build -t modgpt .
#   docker run --rm -v "$PWD/outputs:/work/outputs" -v "$PWD/data:/work/data" modgpt train ffn=moe
#
# With CUDA, where the NVIDIA container toolkit is installed:
#
#   docker build -t modgpt:cuda --build-arg BASE=nvidia/cuda:12.8.1-runtime-ubuntu24.04 --build-arg TORCH=cu128 .
#   docker run --rm --gpus all -v "$PWD/outputs:/work/outputs" -v "$PWD/data:/work/data" modgpt:cuda train
ARG BASE=ubuntu:24.04
FROM ${BASE}

# Which build of PyTorch: cpu, or one for a CUDA version, such as cu128.
ARG TORCH=cpu
# Extras of modgpt, such as report,mlflow.
ARG EXTRAS=report

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv g++ python3-dev \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/modgpt
ENV PATH=/opt/modgpt/bin:$PATH PIP_NO_CACHE_DIR=1

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY modgpt modgpt
COPY hydra_plugins hydra_plugins
RUN pip install --extra-index-url "https://download.pytorch.org/whl/${TORCH}" -c constraints.txt ".[${EXTRAS}]"

RUN useradd --create-home modgpt && mkdir -p /work/outputs /work/data && chown -R modgpt /work
USER modgpt
WORKDIR /work
ENTRYPOINT ["modgpt"]
CMD ["--help"]
