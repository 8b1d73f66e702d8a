"""The losses of BMRL (arXiv:2504.14129), each as a function and as a module. Needs only torch.

====================== ============================================== ====================================
term                   function                                       module
====================== ============================================== ====================================
DFACC (eq. 4-7)        :func:`dfacc_loss`, :func:`dfacc_terms`        :class:`DFACCLoss`
contrastive center     :func:`contrastive_center_loss`                :class:`ContrastiveCenterLoss`
CPC, CMC (eq. 8-11)    :func:`contrastive_loss`                       :class:`CPCLoss`, :class:`CMCLoss`
KL                     :func:`language_alignment_loss`                :class:`LanguageAlignmentLoss`
total (eq. 12)                                                        :class:`BMRLObjective`
====================== ============================================== ====================================
"""

from bmrl.losses.alignment import LanguageAlignmentLoss, language_alignment_loss
from bmrl.losses.center import ContrastiveCenterLoss, contrastive_center_loss
from bmrl.losses.contrastive import contrastive_loss
from bmrl.losses.cross_modal import CMCLoss
from bmrl.losses.cross_perspective import CPCLoss
from bmrl.losses.dfacc import DFACCLoss, DFACCTerms, dfacc_loss, dfacc_terms
from bmrl.losses.objective import BMRLObjective, ObjectiveResult

__all__ = [
    "BMRLObjective",
    "CMCLoss",
    "CPCLoss",
    "ContrastiveCenterLoss",
    "DFACCLoss",
    "DFACCTerms",
    "LanguageAlignmentLoss",
    "ObjectiveResult",
    "contrastive_center_loss",
    "contrastive_loss",
    "dfacc_loss",
    "dfacc_terms",
    "language_alignment_loss",
]
