"""Training that begins from a trained model: fine-tuning, distillation, consistency tuning.

The weights of another run's network, usually an average, replace the network's own initial ones. What those weights
mean must stay the same: the target, the scale of the input and the conditioning belong to them.
"""

from __future__ import annotations

from torch import Tensor

from sfumato.runs.guided import weak_of
from sfumato.runs.idle import differences
from sfumato.runs.plan import Plan
from sfumato.runs.recipe import RecipeError
from sfumato.runs.run import Run

MEANING = ("target", "c_in", "c_noise", "variance", "sigma_data")


def starting_weights(plan: Plan, text: str) -> dict[str, Tensor]:
    """Return the weights that a run begins from.

    Arguments:
        plan: Of the new run's resolved recipe.
        text: RUN, RUN@STEP, RUN@AVERAGE or RUN@STEP@AVERAGE.

    Raises:
        RecipeError: If there is no such run or average, or its network is another one.
        CheckpointError: If there is no such checkpoint.
    """
    recipe = plan.recipe
    if plan.kind.paired:
        raise RecipeError(f"train.start={text} begins from a denoiser's or classifier's weights; a GAN begins afresh.")
    where = weak_of(text, "train.start")
    if not where.folder:
        raise RecipeError(f"train.start={text} names no run. Give RUN{text}, the directory of a trained run.")
    found = Run.open(where.folder)
    run = Run(found.path, found.recipe, found.about, where.step)
    changed = differences(run.recipe, recipe)
    off = {k: v for k, v in changed.items() if k.split(".")[0] in MEANING}
    if off:
        lines = "\n".join(f"  {path}: {old} -> {new}" for path, (old, new) in off.items())
        raise RecipeError(
            f"The weights of {where.folder} are those of a network asked in another way:\n{lines}\n"
            "Give the new run the same target, c_in, c_noise, variance and sigma_data."
        )
    network = run.network(where.use)
    weights = network.state_dict()
    mine, theirs = _shapes(plan.network.state_dict()), _shapes(weights)
    if mine != theirs:
        name = next(n for n in [*mine, *theirs] if mine.get(n) != theirs.get(n))
        raise RecipeError(
            f"The network of {where.folder} has other weights than this recipe's ({name}: {theirs.get(name, 'none')} "
            f"there, {mine.get(name, 'none')} here). Set network to {run.recipe.network}."
        )
    return weights


def _shapes(weights: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in weights.items()}
