"""SASRec (Kang and McAuley, 2018, arXiv 1808.09781) with pre-norm blocks, as a PyTorch module."""

from __future__ import annotations

from .sequence_model import SequenceModel


class SASRec(SequenceModel):
    """Causal transformer over item ids: ``SequenceModel`` as it is."""

    name = "sasrec"
