"""Pretrained networks of other libraries, made ready for an encoder: see :mod:`bmrl.encoders.pretrained`."""
