"""Every family on 8x8 digits, each in about a minute on two cores: the rows of one comparison.

All see the images of `edm-digits` as often, in the same batches, with labels dropped at 10%, and are averaged and
scored alike. Those from ddpm-digits to v-digits also share its network (0.92 million parameters) and its optimiser, so
that what differs is what defines the family: schedule, target, draw, weight, variance, sampler. The rest bring their
own network, of about a million parameters.

Paper-scale siblings carry the same first word. What a small sibling cannot keep it says: networks made for c_noise of
order 1 are told steps in thousandths, and NCSN++ is given inputs of unit variance.
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.recipes._paper import distilled, flow_matched, image_predicted, noise_predicted, tuned
from sfumato.recipes.digits import edm_digits
from sfumato.runs.recipe import Part, Recipe, Sample, part

HUNDRED = part("grid", "respaced", steps=100)
STEPS = part("conditioning", "index", scale=1e-3)


def ddpm_digits() -> Recipe:
    """DDPM on digits: linear chain of 1000, eps, L_simple; ancestral on 100 of the steps.

    Paper: Ho et al., Denoising Diffusion Probabilistic Models, 2020 (network, optimiser and budget are ours).
    Command: sfumato train ddpm-digits
    Hardware and time: about a minute on two CPU cores.
    Expected: no published score.
    Measured here: FD[digits] 0.16 [-0.23, 0.54]; n = 1,000 against the 360 test digits, floor -0.16 [-0.41, 0.09],
    one seed, one core of an AMD EPYC.
    """
    return _chain("ddpm-digits", part("schedule", "linear", steps=1000), part("objective", "denoising"))


def iddpm_digits() -> Recipe:
    """iDDPM on digits: cosine chain of 1000, learned variance, L_hybrid; ancestral on 100 of the steps.

    Paper: Nichol and Dhariwal, Improved Denoising Diffusion Probabilistic Models, 2021 (network, optimiser and budget
    are ours).
    Command: sfumato train iddpm-digits
    Hardware and time: about a minute on two CPU cores.
    Expected: no published score.
    Measured here: FD[digits] 0.02 [-0.33, 0.38]; n = 1,000 against the 360 test digits, floor -0.16 [-0.41, 0.09],
    one seed, one core of an AMD EPYC.
    """
    base = _chain("iddpm-digits", part("schedule", "cosine", steps=1000), part("objective", "hybrid"))
    return replace(base, variance="range", sample=_ancestral("learned"))


def iddpm_vlb_digits() -> Recipe:
    """iDDPM on digits, trained by the bound alone with t drawn by importance.

    Paper: Nichol and Dhariwal, 2021, section 3.3 (network, optimiser and budget are ours; so is a history of 3 losses
    per step, which 1000 steps fill in a third of this budget).
    Command: sfumato train iddpm-vlb-digits
    Hardware and time: about a minute on two CPU cores.
    Expected: no published score.
    Measured here: FD[digits] 55.16 [48.75, 61.57]; n = 1,000 against the 360 test digits, floor -0.16 [-0.41,
    0.09], one seed, one core of an AMD EPYC.
    """
    return replace(
        iddpm_digits(),
        name="iddpm-vlb-digits",
        objective=part("objective", "vlb"),
        draw=part("draw", "importance", history=3),
    )


def vp_digits() -> Recipe:
    """Score SDE on digits, variance-preserving and continuous (DDPM++'s side of it).

    Paper: Song et al., Score-Based Generative Modeling through SDEs, 2021 (network, optimiser and budget are ours).
    Command: sfumato train vp-digits
    Hardware and time: about a minute on two CPU cores.
    Expected: no published score.
    Measured here: FD[digits] 0.38 [-0.02, 0.79]; n = 1,000 against the 360 test digits, floor -0.16 [-0.41, 0.09],
    one seed, one core of an AMD EPYC.
    """
    return replace(
        noise_predicted(edm_digits(), "vp-digits"),
        schedule=part("schedule", "vp"),
        c_noise=part("conditioning", "vp-time", scale=1.0),
        draw=part("draw", "uniform", t_min=1e-5),
        sample=_ancestral("large", part("grid", "uniform", steps=100, t_min=1e-3)),
    )


def ve_digits() -> Recipe:
    """Score SDE on digits, variance-exploding and continuous (NCSN++'s side of it), inputs of unit variance.

    Paper: Song et al., 2021 (network, input scale, optimiser and budget are ours).
    Command: sfumato train ve-digits
    Hardware and time: about a minute on two CPU cores.
    Expected: no published score.
    Measured here: FD[digits] 0.77 [0.22, 1.32]; n = 1,000 against the 360 test digits, floor -0.16 [-0.41, 0.09],
    one seed, one core of an AMD EPYC.
    """
    return replace(
        noise_predicted(edm_digits(), "ve-digits"),
        c_in="unit-variance",
        schedule=part("schedule", "ve"),
        target=part("target", "score"),
        c_noise=part("conditioning", "log-nsr", factor=0.5, scale=0.25),
        sample=_ancestral("large", part("grid", "logsnr", steps=100, sigma_min=0.02, sigma_max=100.0)),
    )


def flow_digits() -> Recipe:
    """Flow matching on digits, logit-normal times; Heun in 18 steps.

    Paper: Lipman et al., Flow Matching for Generative Modeling, 2023, with the times of Esser et al. 2024 (network,
    optimiser and budget are ours).
    Command: sfumato train flow-digits
    Hardware and time: about a minute on two CPU cores.
    Expected: no published score.
    Measured here: FD[digits] -0.02 [-0.37, 0.34]; n = 1,000 against the 360 test digits, floor -0.16 [-0.41, 0.09],
    one seed, one core of an AMD EPYC.
    """
    return flow_matched(edm_digits(), "flow-digits", steps=18)


def otcfm_digits() -> Recipe:
    """OT-CFM on digits: flow matching whose images meet the nearest noises of their batch. Needs SciPy.

    Paper: Tong et al., Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport, 2024
    (network, optimiser and budget are ours; pairs ignore the labels).
    Command: sfumato train otcfm-digits
    Hardware and time: about a minute on two CPU cores.
    Expected: no published score.
    Measured here: FD[digits] -0.04 [-0.39, 0.31]; n = 1,000 against the 360 test digits, floor -0.16 [-0.41, 0.09],
    one seed, two threads of an Intel Xeon.
    """
    objective = part("objective", "denoising", coupling="ot")
    return replace(flow_digits(), name="otcfm-digits", draw=part("draw", "uniform"), objective=objective)


def v_digits() -> Recipe:
    """Velocity prediction on the continuous cosine schedule, the teacher of progressive distillation, on digits.

    Paper: Salimans and Ho, Progressive Distillation for Fast Sampling of Diffusion Models, 2022 (network, optimiser and
    budget are ours).
    Command: sfumato train v-digits
    Hardware and time: about a minute on two CPU cores.
    Expected: no published score.
    Measured here: FD[digits] 0.09 [-0.31, 0.49]; n = 1,000 against the 360 test digits, floor -0.16 [-0.41, 0.09],
    one seed, one core of an AMD EPYC.
    """
    return replace(
        noise_predicted(edm_digits(), "v-digits"),
        schedule=part("schedule", "trig", log_snr_min=-20.0, log_snr_max=20.0),
        target=part("target", "v"),
        c_noise=part("conditioning", "angle"),
        weighting=part("weighting", "snr", plus=1.0),
        sample=Sample(part("sampler", "ddim", clip=True), part("grid", "uniform", steps=35)),
    )


def distill_digits() -> Recipe:
    """Progressive distillation on digits: v-digits taken from 32 steps to 4 in 3 halvings.

    Paper: Salimans and Ho, 2022 (network, optimiser and budget are ours).
    Command: sfumato train v-digits; sfumato train distill-digits train.start=runs/v-digits
    Hardware and time: two minutes on two CPU cores, after the teacher.
    Expected: no published score.
    Measured here: FD[digits] 0.09 [-0.31, 0.50]; n = 1,000 against the 360 test digits, floor -0.16 [-0.41, 0.09],
    one seed, one core of an AMD EPYC.
    """
    sample = Sample(part("sampler", "ddim", clip=True), part("grid", "uniform", steps=4, t_min=1 / 4))
    return distilled(v_digits(), "distill-digits", halvings=3, sample=sample)


def ect_digits() -> Recipe:
    """Consistency tuning on digits: edm-digits taken to two calls (grid.steps=1 for one).

    Paper: Geng et al., Consistency Models Made Easy, 2024 (network, optimiser and budget are ours).
    Command: sfumato train edm-digits; sfumato train ect-digits train.start=runs/edm-digits
    Hardware and time: two minutes on two CPU cores, after edm-digits.
    Expected: no published score.
    Measured here: FD[digits] 0.88 [0.19, 1.57]; n = 1,000 against the 360 test digits, floor -0.16 [-0.41, 0.09],
    one seed, one core of an AMD EPYC.
    """
    return tuned(edm_digits(), "ect-digits")


def cfg_digits() -> Recipe:
    """Classifier-free guidance as it was published, on digits: eps on the continuous cosine schedule, guided at 1.5.

    Paper: Ho and Salimans, Classifier-Free Diffusion Guidance, 2022 (network, optimiser and budget are ours).
    Command: sfumato train cfg-digits; sfumato sweep runs/cfg-digits guidance=1,1.5,2.5,5
    Hardware and time: about a minute on two CPU cores.
    Expected: no published score.
    Measured here: FD[digits] 0.39 [-0.01, 0.80]; n = 1,000 against the 360 test digits, floor -0.16 [-0.41, 0.09],
    one seed, one core of an AMD EPYC.
    """
    return replace(
        noise_predicted(edm_digits(), "cfg-digits"),
        schedule=part("schedule", "trig", log_snr_min=-20.0, log_snr_max=20.0),
        c_noise=part("conditioning", "angle"),
        sample=replace(_ancestral("small", part("grid", "uniform", steps=50)), guidance=1.5),
    )


def ve_corrected_digits() -> Recipe:
    """ve-digits sampled by predictor and corrector, as NCSN++'s published scores are.

    Paper: Song et al., 2021, algorithm 2 (network, input scale, optimiser and budget are ours).
    Command: sfumato train ve-corrected-digits
    Hardware and time: about a minute on two CPU cores.
    Expected: no published score.
    Measured here: FD[digits] 0.55 [-0.03, 1.13]; n = 1,000 against the 360 test digits, floor -0.16 [-0.41, 0.09],
    one seed, one core of an AMD EPYC.
    """
    base = ve_digits()
    sampler = part("sampler", "predictor-corrector", snr=0.16, clip=True)
    return replace(base, name="ve-corrected-digits", sample=replace(base.sample, sampler=sampler))


def adm_digits() -> Recipe:
    """ADM on digits: iDDPM's recipe with ADM's network, made small. `adm-digits-classifier` guides it.

    Paper: Dhariwal and Nichol, Diffusion Models Beat GANs on Image Synthesis, 2021 (sizes and budget are ours).
    Command: sfumato train adm-digits; sfumato sample RUN classifier=CLASSIFIER_RUN classifier_scale=1
    Hardware and time: a few minutes on two CPU cores.
    Expected: no published score.
    Measured here: FD[digits] -0.02 [-0.37, 0.33]; n = 1,000 against the 360 test digits, floor -0.16 [-0.41, 0.09],
    one seed, one core of an AMD EPYC.
    """
    network = part("network", "adm", width=32, mult=(1, 2), blocks=1, attention=(4,))
    return replace(iddpm_digits(), name="adm-digits", network=network, c_noise=part("conditioning", "index"))


def adm_digits_classifier() -> Recipe:
    """ADM's noisy classifier on digits, for the chain of adm-digits.

    Paper: Dhariwal and Nichol, 2021, section 4 (sizes and budget are ours).
    Command: sfumato train adm-digits-classifier
    Hardware and time: about a minute on two CPU cores.
    Expected: no published accuracy.
    The run's metrics.jsonl holds its accuracy by noise level.
    """
    base = adm_digits()
    adamw = part("optimizer", "adamw", lr=1e-3, weight_decay=0.05)
    return replace(
        base,
        name="adm-digits-classifier",
        network=part("network", "adm-classifier", width=32, mult=(1, 2), blocks=1, attention=(4,)),
        variance="none",
        objective=part("objective", "classifier"),
        train=replace(base.train, optimizer=adamw, rate=part("rate", "linear")),
        sample=Sample(),
    )


def songunet_digits() -> Recipe:
    """EDM with DDPM++ on digits, without the augmentation and the dropout of its paper.

    Paper: Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022 (sizes and budget are
    ours). Augmentation is for a network that sees each image thousands of times; here it sees each 28 times, and with
    both (data.augment=0.12 network.dropout=0.1) it scored 3.13.
    Command: sfumato train songunet-digits
    Hardware and time: a few minutes on two CPU cores.
    Expected: no published score.
    Measured here: FD[digits] 0.07 [-0.30, 0.44]; n = 1,000 against the 360 test digits, floor -0.16 [-0.41, 0.09],
    one seed, one core of an AMD EPYC that other work shared.
    """
    network = part("network", "songunet", width=32, mult=(2, 2), blocks=1, attention=(4,))
    return replace(edm_digits(), name="songunet-digits", network=network)


def edm2_digits() -> Recipe:
    """EDM2 on digits: magnitude-preserving layers and a learned weight per level.

    Paper: Karras et al., Analyzing and Improving the Training Dynamics of Diffusion Models, 2024 (sizes and budget are
    ours).
    Command: sfumato train edm2-digits
    Hardware and time: a few minutes on two CPU cores.
    Expected: no published score.
    Measured here: FD[digits] 1.06 [0.47, 1.64]; n = 1,000 against the 360 test digits, floor -0.16 [-0.41, 0.09],
    one seed, one core of an AMD EPYC.
    """
    base = edm_digits()
    train = replace(
        base.train,
        optimizer=part("optimizer", "adam", lr=0.01, beta2=0.99),
        rate=part("rate", "inverse-sqrt", warmup=3200.0, after=20_000.0, cooldown=0.2),
    )
    network = part("network", "edm2", width=32, mult=(1, 2), blocks=1, attention=(4,), head_width=32)
    return replace(base, name="edm2-digits", network=network, objective=part("objective", "uncertainty"), train=train)


def dit_digits() -> Recipe:
    """A small DiT on digits, by EDM's objective: 16 tokens of 2x2 pixels.

    Paper: Peebles and Xie, Scalable Diffusion Models with Transformers, 2023 (its network; the objective is EDM's, the
    optimiser that of edm-digits: in these 313 steps AdamW at 1e-3 gets as far as FD 10.42).
    Command: sfumato train dit-digits
    Hardware and time: about a minute on two CPU cores.
    Expected: no published score.
    Measured here: FD[digits] 1.53 [0.91, 2.14]; n = 1,000 against the 360 test digits, floor -0.16 [-0.41, 0.09],
    one seed, one core of an AMD EPYC that other work shared.
    """
    network = part("network", "dit", patch=2, width=96, depth=6, heads=4)
    return replace(edm_digits(), name="dit-digits", network=network)


def jit_digits() -> Recipe:
    """A small JiT on digits, as its paper trains it: x0 target, error of the velocity, 16 tokens of 2x2 pixels.

    Paper: Li and He, Back to Basics: Let Denoising Generative Models Denoise, 2025 (size, optimiser, budget are ours).
    Command: sfumato train jit-digits
    Hardware and time: about a minute on two CPU cores.
    Expected: no published score.
    Measured here: FD[digits] 0.03 [-0.30, 0.36]; n = 1,000 against the 360 test digits, floor -0.16 [-0.41, 0.09],
    one seed, one core of an AMD EPYC that other work shared.
    """
    network = part("network", "jit", patch=2, width=96, depth=6, heads=4, bottleneck=16)
    return image_predicted(flow_digits(), "jit-digits", network)


def _chain(name: str, schedule: Part, objective: Part) -> Recipe:
    return replace(
        noise_predicted(edm_digits(), name),
        schedule=schedule,
        c_noise=STEPS,
        objective=objective,
        sample=_ancestral("small"),
    )


def _ancestral(variance: str, grid: Part = HUNDRED) -> Sample:
    return Sample(part("sampler", "ancestral", variance=variance, clip=True), grid)
