"""Train on handwritten digits, sample, guide and score: the whole way, in about a minute on two cores."""

import sfumato
from sfumato.recipes.digits import edm_digits
from sfumato.runs.override import override
from sfumato.training.loop import train

OUT = "runs/examples/digits"
BUDGET = 60_000  # images seen; more makes better digits

recipe = override(edm_digits(), [f"train.images={BUDGET}"])
run = train(recipe, OUT)  # again, it goes on or finds itself done

model = sfumato.load(run.path)
print(model)
print(model.sample(40).save(f"{OUT}/samples/all.png"))
print(model.guided(2.0).sample(8, classes=["3"]).save(f"{OUT}/samples/threes.png"))
model.steps(3).save(f"{OUT}/samples/steps.png")
for score in model.evaluate(n=500, quiet=True).scores:
    low, high = score.interval
    print(f"{score.name}: {score.value:.3f} [{low:.3f}, {high:.3f}]")
