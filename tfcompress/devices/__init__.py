"""Where a file runs while it is measured: ``local`` starts ``agent`` in a child process of this machine.

Nothing in this package imports Keras or TensorFlow: it is what runs on a board.
"""
