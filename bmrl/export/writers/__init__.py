"""Writers of the export formats; imported only by :mod:`bmrl.export.formats`."""
