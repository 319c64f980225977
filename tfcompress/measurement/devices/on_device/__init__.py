"""What runs on the device itself?

In: one request on standard input. Out: one answer on standard output. NumPy, LiteRT and Python 3.9 are all it needs; its
modules are imported one by one, because a board gets no names of packages.
"""
