"""Does a ``.tflite`` file contradict itself? Asked once, when it is read, before anything is allocated or run.

In: a flatbuffer. Out: nothing, or a ``Contradiction`` that says which number leads nowhere. ``sizes`` bounds what reading takes,
``indices`` follows every number that names something else. Whether LiteRT has the ops is found by opening the file.
"""
