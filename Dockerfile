# chela for a GPU or a CPU; data and outputs stay in the folder that is mounted at /work:
#   docker build -t chela .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/work" chela train task=listops model=chela
# PyTorch's wheel brings CUDA; the host needs NVIDIA's driver and its container toolkit.
FROM python:3.12-slim-bookworm

# Triton compiles the code that launches a kernel where it runs
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/chela
COPY pyproject.toml setup.py constraints.txt README.md LICENSE ./
COPY configs configs
COPY tasks tasks
COPY chela chela
RUN pip install --no-cache-dir --constraint constraints.txt '.[search,hf,bpe]'

# whoever runs it can write its caches there
ENV HOME=/tmp
WORKDIR /work
ENTRYPOINT ["chela"]
CMD ["--help"]
