"""Evaluate: from weights, or from files, to a score with its interval, its floor and its protocol.

    reference   real images of a split the model was not trained on, all of them (m)
    generated   seeds first .. first + n, classes in equal numbers if the model has classes
    floor       n real training images judged against the same reference, several times over

Images stream from the sampler into features (`generated`); features are the only thing kept, on disk, so memory does
not grow with n and a killed evaluation goes on where it was.  What is known of real images is cached under their
content (`real`, `cache`).  `judge` holds every rule of a score; `scoring` asks it for a run, `two_sets` for any two
sets of images or features, `calibrating` for real images alone, training and studies for what they made.  Metrics are
in `metrics/scores/`, tables of a run in `tables/`.  Every score records what made it; `sfumato compare` refuses scores
of different protocols.
"""

from sfumato.evaluation.real import balanced, cached_features, reference_of
from sfumato.evaluation.result import Result
from sfumato.evaluation.scoring import evaluate

__all__ = ["Result", "balanced", "cached_features", "evaluate", "reference_of"]
