"""Writers of the export formats; imported by :mod:`bmrl.export.formats` alone."""
