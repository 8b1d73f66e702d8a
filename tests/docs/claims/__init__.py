"""Each measured number of the pages, as the words around it and the result that it stands for."""

from __future__ import annotations

from tests.docs.claims.exports import encoders, exports
from tests.docs.claims.folds import folds, scores
from tests.docs.claims.losses import losses
from tests.docs.claims.operators import kernels, operators
from tests.docs.claims.presets import presets
from tests.docs.claims.study import studies

CLAIMS = [*operators(), *kernels(), *losses(), *exports(), *encoders(), *studies(), *folds(), *scores(), *presets()]
