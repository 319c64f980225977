"""Models that compress well, to start from."""
