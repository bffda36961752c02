"""Study: can clusters stand in for classes?

The same model is trained without labels, with the clusters of k-means at three K, and with the true classes, and each
is sampled with guidance and without. Clusters are asked for as often as they occur among the training images, classes
equally often; a model without labels has nothing to be guided by, so it has one row. Clusters are said to bring most of
what labels bring; how much, and at which K, is measured here.

References:
    Hu, Zhang, Asano, Burghouts, Snoek. Self-Guided Diffusion Models. 2022. https://arxiv.org/abs/2210.06462
    Adaloglou, Kaiser, Michels, Kollmann. Rethinking Cluster-Conditioned Diffusion Models. 2024.
        https://arxiv.org/abs/2403.00570
"""

from __future__ import annotations

from sfumato.experiments.figures import sheets
from sfumato.experiments.study import Ordering, Row, Study, at, variant
from sfumato.studies._bases import small_edm

# scale -> numbers of clusters, images judged, training seeds, guidance weight
SIZES = {"tiny": ((5, 10, 20), 100, (0,), 1.5), "cpu": ((5, 10, 40), 2000, (0, 1, 2), 1.3)}
ADALOGLOU, HU = "Adaloglou et al. 2024", "Hu et al. 2022"


def clusters(scale: str) -> Study:
    """Compare a model told nothing, clusters at three K, and classes, each with guidance and without.

    Arguments:
        scale: "tiny" (digits) or "cpu" (Fashion-MNIST at 14x14).
    """
    counts, n, seeds, w = at(scale, SIZES)
    base = small_edm(scale)
    told = {"classes": base}
    for k in counts:
        fields = ["data.labels=clusters", f"data.labels.count={k}", f"data.labels.features={base.evaluate.extractor}"]
        told[f"{k} clusters"] = variant(base, f"{k} clusters", fields)
    rows = [Row("unlabelled", variant(base, "unlabelled", ["data.labels=false"]))]
    for name, recipe in told.items():
        rows += [Row(name, recipe), Row(f"{name}, guided", recipe, (f"sample.guidance={w}",), run=name)]
    some = f"{counts[1]} clusters"
    return Study(
        name="clusters",
        scale=scale,
        question="Can clusters of the images stand in for their classes?",
        varies=f"what a model is told of an image: nothing, its cluster at three K, or its class; guidance {w:g} or 1",
        equal="data, network, optimiser, images seen, sampler, grid, n; clusters are asked for as often as they occur. "
        "They are made of features that score the images too, which favours them",
        rows=tuple(rows),
        n=n,
        seeds=seeds,
        orderings=(
            Ordering.below(some, "unlabelled", ADALOGLOU),
            Ordering.below(f"{some}, guided", "unlabelled", HU),
            Ordering.below("classes", "unlabelled"),
            Ordering.below(f"{some}, guided", some),
        ),
        varied=("class_prior", "options.strata"),  # which labels are asked for is the question
        paper="Hu et al. 2022 and Adaloglou et al. 2024, on ImageNet and CIFAR",
        pictures=sheets,
    )
