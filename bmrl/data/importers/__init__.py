"""Importers: each turns one layout of images on disk into a folder with a manifest.

An importer lists what it finds as :class:`~bmrl.data.importers.candidates.Candidate` and leaves decoding, duplicates,
splits, copying and the report to :func:`~bmrl.data.importers.assembly.assemble`.
"""
