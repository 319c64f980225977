"""One reader for each kind of source, each from the source to ``Samples`` in one go.

Each has ``read(source, spec)``, which returns the source's ``Samples`` with the labels that the ``SampleSpec`` asks for. Which
one reads what is the table in ``data.loading``.
"""
