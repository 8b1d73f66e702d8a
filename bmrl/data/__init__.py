"""Manifests, data sets, prompts and importers.

Nothing is imported here: take what is needed from its own module (``from bmrl.data.manifest import
Manifest``), so that reading a manifest never loads the tokenizer or the training libraries.
"""
