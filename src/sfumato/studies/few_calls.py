"""Study: few calls, which way? A teacher with better samplers, its students, MeanFlow from nothing, and a GAN.

A diffusion model can be asked fewer times (a better sampler), taught to need fewer (progressive distillation,
consistency tuning), or trained for it from the start (MeanFlow); a GAN asks once by nature. Every way has seen the same
number of training images in all, the teacher's counted; minutes stand beside. Two rows ask for more: a student of the
whole teacher, which then sees five sixths of its images again, in about the teacher's minutes.

References:
    Salimans, Ho. Progressive Distillation for Fast Sampling of Diffusion Models. 2022, Table 2.
    https://arxiv.org/abs/2202.00512
    Geng et al. Consistency Models Made Easy. 2024, Table 1. https://arxiv.org/abs/2406.14548
    Geng et al. Mean Flows for One-step Generative Modeling. 2025, Table 3. https://arxiv.org/abs/2505.13447
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.experiments.figures import curve
from sfumato.experiments.study import Ordering, Row, Study, at
from sfumato.recipes.digits_families import ect_digits, flow_digits
from sfumato.recipes.fashion_mnist import flow_fashion_mnist_cpu
from sfumato.recipes.few_calls import meanflow_digits, meanflow_fashion_mnist_cpu
from sfumato.runs.override import override
from sfumato.runs.recipe import Part, Recipe, Sample, part
from sfumato.studies._bases import edm as shared
from sfumato.studies._bases import seen, sized, small_gan

# scale -> teacher's calls, students' calls, steps that distillation of half-trained and of whole teachers begins with,
# images in all, images judged, seeds
SIZES = {
    "tiny": ((1, 2), (1, 2), (4, 4), 1024, 80, (0,)),
    "cpu": ((1, 2, 4, 8, 16, 35), (1, 2, 4), (32, 16), 120_000, 2000, (0, 1, 2)),
    "cpu28": ((1, 2, 4, 8, 16, 35), (1, 2, 4), (32, 16), 200_000, 2000, (0,)),
}


def few_calls(scale: str) -> Study:
    """Score the ways to few calls at 1 to 35 network calls an image, at equal training images.

    Arguments:
        scale: "tiny" (digits), "cpu" (Fashion-MNIST at 14x14) or "cpu28" (at 28x28).
    """
    calls, few, (longest, shorter), images, n, seeds = at(scale, SIZES)
    edm = seen(shared(scale), images)  # the run that other studies train, too
    flow, mean = (
        seen(sized(one, other, scale), images)
        for one, other in ((flow_digits(), flow_fashion_mnist_cpu()), (meanflow_digits(), meanflow_fashion_mnist_cpu()))
    )
    gan, half, again = seen(small_gan(scale), images), images // 2, images * 5 // 6
    whole = {k: f"distilled from the whole flow, {_in(k)}" for k in few}
    rows = [
        *(Row(f"EDM, {_in(k)}", edm, (f"sample.grid.steps={k}",), run="edm", line="EDM") for k in calls),
        *(Row(f"flow, {_in(k)}", flow, _euler(k), run="flow", line="flow matching") for k in calls),
        Row("EDM, half trained", seen(edm, half), line="EDM, half trained"),
        Row("flow, half trained", seen(flow, half), line="flow matching, half trained"),
        *(Row(f"MeanFlow, {_in(k)}", mean, (f"sample.grid.steps={k}",), run="meanflow", line="MeanFlow") for k in few),
        *(
            Row(f"ECT, {_in(k)}", _tuned(edm, half), (f"sample.grid.steps={k}",), run="ect", line="consistency tuning")
            for k in few
        ),
        *(Row(f"distilled, {_in(k)}", _distilled(flow, half, longest, k), line="progressive") for k in few),
        *(Row(whole[k], _of_whole(flow, again, shorter, k), line="progressive, whole teacher") for k in few[:2]),
        Row("DCGAN", gan, line="DCGAN", x=1),
    ]
    students = {"ect": "EDM, half trained"} | {f"distilled, {_in(k)}": "flow, half trained" for k in few}
    students |= {whole[k]: "flow" for k in few[:2]}
    return Study(
        name="few-calls",
        scale=scale,
        question="Which way to few network calls loses least?",
        varies="the way, and the calls",
        equal="training images in all, the teacher's counted (five sixths again for students of whole teachers); "
        "network, starting noise of every image, n",
        by="network calls",
        rows=tuple(rows),
        metrics=("fd", "kid", "precision", "recall"),
        n=n,
        seeds=seeds,
        starts=students,
        orderings=(
            Ordering.below("MeanFlow, 1 step", "flow, 1 step", "Geng et al. 2025, Table 3"),
            Ordering.below("ECT, 2 steps", "EDM, 2 steps", "Geng et al. 2024, Table 1"),
            Ordering.below("distilled, 2 steps", "flow, 2 steps", "Salimans and Ho 2022, Table 2"),
            Ordering.below("ECT, 1 step", "DCGAN"),
        ),
        timed=True,
        pictures=curve("network calls", "Few calls"),
    )


def _in(steps: int) -> str:
    """Return a number of steps in words."""
    return "1 step" if steps == 1 else f"{steps} steps"


def _euler(steps: int) -> tuple[str, ...]:
    """Return the settings by which a flow-matching run takes Euler steps."""
    return ("sample.sampler=ddim", "sample.grid=flow", f"sample.grid.steps={steps}")


def _student(teacher: Recipe, images: int, name: str, objective: Part, sample: Sample, optimizer: Part) -> Recipe:
    train = replace(teacher.train, images=images, optimizer=optimizer, precision="fp32")
    return replace(teacher, name=f"{teacher.name}-{name}", objective=objective, sample=sample, train=train)


def _tuned(teacher: Recipe, images: int) -> Recipe:
    """Return consistency tuning of a teacher."""
    known = ect_digits()
    tuned = _student(teacher, images, "ect", known.objective, known.sample, known.train.optimizer)
    return replace(tuned, draw=known.draw)


def _distilled(teacher: Recipe, images: int, longest: int, steps: int) -> Recipe:
    """Return progressive distillation of a teacher from `longest` steps to `steps`."""
    halvings = (longest // steps).bit_length() - 1
    made = _student(
        *(teacher, images, f"distilled-{steps}"),
        part("objective", "distill", steps=longest, halvings=halvings, label_dropout=0.1),
        Sample(part("sampler", "ddim"), part("grid", "flow", steps=steps)),
        part("optimizer", "adam", lr=5e-4),
    )
    return override(made, ["train.rate=stages", f"train.rate.count={halvings}"])


def _of_whole(teacher: Recipe, images: int, longest: int, steps: int) -> Recipe:
    """Return progressive distillation of a teacher in its own precision, by Muon, chosen on training images."""
    made = _distilled(teacher, images, longest, steps)
    muon = part("optimizer", "muon", lr=0.005)
    return replace(made, train=replace(made.train, precision=teacher.train.precision, optimizer=muon))
