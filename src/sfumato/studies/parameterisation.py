"""Study: DDPM's table of parameterisations: what the network predicts, which variance, which loss.

    mu-tilde    bound L with learned diagonal variance; L with fixed variance; plain squared error
    eps         bound L with learned diagonal variance; L with fixed variance; L_simple
    x0, v       plain squared error of the output (x0 was dismissed in the text, v came later)

A training whose steps are not finite, or whose loss ends above its start, is shown as "-", as the paper left its
unstable cells blank.

References:
    Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020, Table 2. https://arxiv.org/abs/2006.11239
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.core.find import find
from sfumato.experiments.figures import sheets
from sfumato.experiments.study import Ordering, Row, Study, at
from sfumato.recipes.ddpm import ddpm_cifar10
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe
from sfumato.studies._bases import small_ddpm

SIZES = {"tiny": (200, (0,), 10), "cpu": (1000, (0, 1, 2), 50), "paper": (50_000, (0,), 1000)}  # n, seeds, steps
BOUND = ("objective=vlb", "objective.fixed=large")
FIXED, DIAGONAL = ("sample.sampler.variance=large",), ("variance=diagonal", "sample.sampler.variance=diagonal")
CELLS = {  # name: fields, the paper's FID, the recipe of the paper
    "mu-tilde, L, learned": (("target=mu-tilde", *BOUND, *DIAGONAL), 23.69, "ddpm-ablation-mu-bound-learned"),
    "mu-tilde, L, fixed": (("target=mu-tilde", *BOUND, *FIXED), 13.22, "ddpm-ablation-mu-bound"),
    "mu-tilde, squared error": (("target=mu-tilde", "weighting=native", *FIXED), None, "ddpm-ablation-mu-mse"),
    "eps, L, learned": (("target=eps", *BOUND, *DIAGONAL), None, "ddpm-ablation-eps-bound-learned"),
    "eps, L, fixed": (("target=eps", *BOUND, *FIXED), 13.51, "ddpm-ablation-eps-bound"),
    "eps, L_simple": (("target=eps", "weighting=simple", *FIXED), 3.17, "ddpm-cifar10"),
    "x0, squared error": (("target=x0", "weighting=native", *FIXED), None, "ddpm-ablation-x0-mse"),
    "v, squared error": (("target=v", "weighting=native", *FIXED), None, ""),
}
SOURCE = "Ho et al. 2020, Table 2"


def _recipe(name: str, scale: str, steps: int) -> Recipe:
    fields, _, published = CELLS[name]
    if scale == "paper" and published:
        return find("recipe", published)()
    base = ddpm_cifar10() if scale == "paper" else small_ddpm(scale)
    ancestral = ("sample.sampler=ancestral", "sample.sampler.clip=true", "sample.grid=respaced")
    made = override(base, [*ancestral, f"sample.grid.steps={steps}", *fields])
    return replace(made, name=f"{base.name}-{name}".replace(", ", "-").replace(" ", "-").lower())


def parameterisation(scale: str) -> Study:
    """Compare what the network predicts, the variance and the loss: DDPM's Table 2, completed.

    Arguments:
        scale: "tiny" (digits), "cpu" (Fashion-MNIST at 14x14) or "paper" (CIFAR-10, scored against the training set).
    """
    n, seeds, steps = at(scale, SIZES)
    rows = tuple(Row(name, _recipe(name, scale, steps), paper=paper) for name, (_, paper, _) in CELLS.items())
    return Study(
        name="parameterisation",
        scale=scale,
        question="What should the network predict, and by which loss?",
        varies="target, loss, and whether a diagonal variance is learned",
        equal=f"data, linear chain of 1000, network but for a variance's head, images seen, {steps} ancestral steps, n",
        rows=rows,
        n=n,
        seeds=seeds,
        split="train" if scale == "paper" else "test",
        orderings=(
            Ordering("eps: L_simple scores below L", ("eps, L_simple", "eps, L, fixed"), source=SOURCE),
            Ordering(
                "mu-tilde with L: fixed scores below learned variance",
                ("mu-tilde, L, fixed", "mu-tilde, L, learned"),
                source=SOURCE,
            ),
            Ordering(
                "L_simple of eps scores below L of mu-tilde", ("eps, L_simple", "mu-tilde, L, fixed"), source=SOURCE
            ),
        ),
        paper=f"{SOURCE}: FID on CIFAR-10, 50,000 images; unstable cells are blank",
        pictures=sheets,
    )
