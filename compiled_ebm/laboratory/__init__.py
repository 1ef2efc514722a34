"""The laboratory: backends and peers side by side.

``compare`` and ``tune`` are at the package's top. Nothing is imported here: a GPU machine may lack what reports are
printed with.
"""
