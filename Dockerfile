# The HTTP service on a CPU: docker compose up, or
#   docker build -t flowavenet . && docker run -p 8000:8000 -e FLOWAVENET_API_KEY=... flowavenet
FROM python:3.11-slim

WORKDIR /app
COPY constraints.txt .
# first, as it is large and seldom changes; from PyTorch's own index, where it comes without a GPU's libraries
RUN pip install --no-cache-dir --constraint constraints.txt --index-url https://download.pytorch.org/whl/cpu torch
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY checkpoints checkpoints
COPY flowavenet flowavenet
RUN pip install --no-cache-dir --constraint constraints.txt '.[serve]'

RUN useradd --create-home --uid 10001 flowavenet
USER flowavenet
WORKDIR /home/flowavenet

EXPOSE 8000
HEALTHCHECK --start-period=60s --interval=10s --timeout=5s CMD ["python", "-c", \
    "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["flowavenet", "serve", "--host", "0.0.0.0", "--port", "8000"]
