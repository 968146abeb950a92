"""What a reader is asked of each counterfactual: what the thesis COIN-Aligned looked for by eye (section 3.9.3). Is
the image plausible and its structure kept, are there artefacts, and how does the model take the lesion away?"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """A question and the answers that a reader may give."""

    text: str
    answers: tuple[str, ...]  # best first


QUESTIONS = {
    "healthy": Question("Does the counterfactual look healthy?", ("yes", "partly", "no")),
    "place": Question("Is the change in the right place?", ("yes", "partly", "no")),
    "artefacts": Question("Artefacts, blur, patterns?", ("none", "few", "many")),
    "lesion": Question("What stands where the lesion was?", ("tissue", "hole", "highlight", "lesion")),
}
