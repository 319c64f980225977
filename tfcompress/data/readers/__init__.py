"""One reader for each kind of source, each from the source to ``Samples`` in one go.

Each has ``reads(source)``, whether it takes a source, and ``read(source, spec)``, which returns its ``Samples`` with the
labels that the ``SampleSpec`` asks for. Which one reads what is the table in ``data.loading``.
"""
