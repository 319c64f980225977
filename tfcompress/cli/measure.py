"""``tfcompress measure``: accuracy, latency, memory and size of ``.tflite`` files."""
SUMMARY = "measure accuracy, latency, memory and size of .tflite files"
def run(arguments, *, program): raise SystemExit(3)
