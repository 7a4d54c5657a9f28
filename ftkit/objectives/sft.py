"""Supervised fine-tuning: the negative log-likelihood of demonstrations."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ftkit.core.reduce import masked_mean
from ftkit.objectives.base import Kind, Loss, Objective, Unit

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.core.batch import Batch


class SFT(Objective):
    r"""Minimize  - mean over answer tokens t of log π(y_t | x, y_<t).

    With ``average: answer`` the mean runs over answers, of the sum over each one's tokens: the
    seed's equation (sft) to the letter, in which long answers weigh more.

    With ``loss: dynamic`` each token's term is - π(y_t | x, y_<t): its gradient is that of the
    log-likelihood times the probability, so that tokens which the model finds unlikely pull less.
    The paper writes this as - sg(π) log π, a surrogate with the same gradient; the value logged
    here is that of the function which is really minimized, and ``nll`` is logged beside it.

    Source: the seed, equation (sft); Wu et al., 2025 (arXiv:2508.05629), equation 9, for
    ``dynamic``, there called DFT, Dynamic Fine-Tuning (not Discriminative Fine-Tuning, ``dft``).
    """

    about: ClassVar[str] = "supervised fine-tuning on demonstrations"
    kind: ClassVar[Kind] = "demonstrations"
    local: ClassVar[bool] = True

    name: Literal["sft"]
    form: Literal["nll", "dynamic"] = Field("nll", alias="loss")
    """`nll`: the negative log-likelihood; `dynamic`: each token weighted by its own probability
    (Dynamic Fine-Tuning)."""
    average: Literal["token", "answer"] = "token"
    """Over what the mean runs: every trained token alike, or answers, each the sum of its
    tokens."""

    @property
    def unit(self) -> Unit:
        """Tokens or answers."""
        return self.average

    def loss(self, logp: Tensor, batch: Batch) -> Loss:
        """Return the term of each answer token: [B, K, T]."""
        terms = -logp if self.form == "nll" else -logp.exp()
        nll = masked_mean(-logp, batch.mask)
        return Loss(terms.where(batch.mask, 0.0), {"nll": nll})
