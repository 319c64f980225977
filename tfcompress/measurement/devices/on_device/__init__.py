"""What runs on the device itself?

In: one request on standard input. Out: one answer on standard output. NumPy and LiteRT are all it needs.
"""
