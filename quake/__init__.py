import os

# Before anything imports ONNX Runtime, which from then on would send Microsoft what it counts, under an id that it writes into the
# user's cache. Who wants that sets 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
