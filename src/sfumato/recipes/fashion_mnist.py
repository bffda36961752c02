"""Three families on Fashion-MNIST, each a row of the same table: one network, one optimiser, equal images seen.

The shared parts are a compact 2.97M-parameter U-Net that works on 2x2 patches, Muon with a hold-then-linear rate, and
a power-function average of the weights. What differs is what defines the family: the schedule, the target, which
levels training visits, and how samples are drawn. Fashion-MNIST is at https://github.com/zalandoresearch/fashion-mnist.
Last stands the same in colour, on photographs.
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.recipes._paper import flow_matched, noise_predicted
from sfumato.runs.recipe import Data, Ema, Evaluate, Recipe, Sample, Train, part


def edm_fashion_mnist_cpu() -> Recipe:
    """EDM on Fashion-MNIST (28x28), class-conditional, for two CPU cores.

    Paper: Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022 (network, optimiser
    and budget are ours).
    Command: sfumato train edm-fashion-mnist-cpu
    Cost: 200,000 images, 41 minutes on one thread of an Intel Xeon with AMX whose other core was busy.
    Measured here: FD[fashion_mnist] 1.11 [1.01, 1.22], with guidance 1.5 0.297 [0.256, 0.337]; n = 5,000 against the
    10,000 test images, floor -0.001 [-0.008, 0.007], one seed (docs/results/fashion-mnist.md).
    """
    return Recipe(
        name="edm-fashion-mnist-cpu",
        data=Data("fashion-mnist"),
        target=part("target", "edm"),
        network=part("network", "unet", width=64, mult=(1, 2), blocks=2, attention=(1,), patch=2),
        c_noise=part("conditioning", "quarter-log-nsr"),
        c_in="unit-variance",
        draw=part("draw", "lognormal", mean=-1.2, std=1.2),
        weighting=part("weighting", "edm"),
        train=Train(
            images=200_000,
            batch=64,
            optimizer=part("optimizer", "muon", lr=0.02, rest_lr=1e-3),
            rate=part("rate", "linear", warmup=6400.0, hold=0.4),
            precision="bf16",
        ),
        ema=Ema(power=(0.05, 0.10, 0.15), use="power-0.10"),
        sample=Sample(part("sampler", "dpmpp", order=2), part("grid", "karras", steps=12)),
        evaluate=Evaluate("fashion-mnist", 5000),
    )


def fashion_mnist_cpu_hour() -> Recipe:
    """The best of one hour on two CPU cores: EDM on Fashion-MNIST (28x28), class-conditional, by the clock.

    Paper: Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022, with the averages of
    Karras et al., Analyzing and Improving the Training Dynamics of Diffusion Models, 2024, section 3 (network,
    optimiser and budget are ours).
    Command: sfumato train fashion-mnist-cpu-hour; then sfumato ema runs/fashion-mnist-cpu-hour --choose --n 2000
    The rate falls with the clock (train.minutes=60), so a faster machine sees more images; 16 snapshots let the width
    of the average be chosen afterwards. Guidance acts at middle levels only, which costs few calls and little recall.
    Cost: 60 minutes on two cores; 704,320 to 781,120 images on an AMD EPYC without AMX beside some other work.
    Measured here: FD[fashion_mnist] 0.054 [0.029, 0.078], without guidance 0.218 [0.161, 0.275]; n = 5,000 against the
    10,000 test images, floor -0.001 [-0.008, 0.007], mean of three seeds (docs/results/fashion-mnist.md).
    """
    recipe = edm_fashion_mnist_cpu()
    return replace(
        recipe,
        name="fashion-mnist-cpu-hour",
        draw=part("draw", "lognormal", mean=-0.9, std=1.2),
        train=replace(
            recipe.train,
            minutes=60.0,
            evaluate_every=200_000,
            optimizer=part("optimizer", "muon", lr=0.01, rest_lr=1e-3),  # of `sfumato study optimizers`
        ),
        ema=Ema(power=(0.05, 0.10), use="power-0.05", snapshots=16),
        sample=replace(recipe.sample, guidance=1.5, interval=(0.25, 4.0)),
    )


def ddpm_fashion_mnist_cpu() -> Recipe:
    """DDPM on Fashion-MNIST (28x28), class-conditional, for two CPU cores.

    Paper: Ho et al., Denoising Diffusion Probabilistic Models, 2020: linear schedule of 1000 steps, epsilon target,
    L_simple; sampled by DDIM on 50 of the steps with x0 clipped, as DDPM does (network, optimiser, budget are ours).
    Command: sfumato train ddpm-fashion-mnist-cpu
    Cost: 200,000 images, 27 minutes on one thread of an Intel Xeon with AMX whose other core was busy.
    Measured here: FD[fashion_mnist] 2.47 [2.26, 2.68]; n = 5,000 against the 10,000 test images,
    floor -0.001 [-0.008, 0.007], one seed (docs/results/fashion-mnist.md).
    """
    return replace(
        noise_predicted(edm_fashion_mnist_cpu(), "ddpm-fashion-mnist-cpu"),
        schedule=part("schedule", "linear", steps=1000),
        c_noise=part("conditioning", "index", scale=1e-3),
        sample=Sample(part("sampler", "ddim", clip=True), part("grid", "respaced", steps=50)),
    )


def flow_fashion_mnist_cpu() -> Recipe:
    """Flow matching on Fashion-MNIST (28x28), class-conditional, for two CPU cores.

    Paper: Lipman et al., Flow Matching for Generative Modeling, 2023, with the logit-normal times of Esser et al. 2024
    (network, optimiser and budget are ours).
    Command: sfumato train flow-fashion-mnist-cpu
    Cost: 200,000 images, 61 minutes on one thread of an Intel Xeon with AMX whose other core was busy.
    Measured here: FD[fashion_mnist] 0.93 [0.85, 1.02]; n = 5,000 against the 10,000 test images,
    floor -0.001 [-0.008, 0.007], one seed (docs/results/fashion-mnist.md).
    """
    return flow_matched(edm_fashion_mnist_cpu(), "flow-fashion-mnist-cpu", steps=25)


def cifar10_lossy_cpu() -> Recipe:
    """EDM on LOSSY CIFAR-10 (32x32 colour, JPEG of quality 75), class-conditional, two hours of two CPU cores.

    Paper: Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022 (network, optimiser
    and budget are ours).
    Command: sfumato train cifar10-lossy-cpu; sfumato evaluate runs/cifar10-lossy-cpu --weights resnet56-4bfd9763.th
    The network is that of edm-fashion-mnist-cpu with 96 channels, the rest that of fashion-mnist-cpu-hour. The images
    carry the traces of their compression, so FD[resnet] to the test images of the same file is its score, which must
    never stand beside a published number of CIFAR-10.
    Cost: 120 minutes on two cores; 870,464 images on an AMD EPYC without AMX.
    Measured here: FD[resnet] 0.61 [0.56, 0.67], without guidance 1.74 [1.61, 1.88]; n = 5,000 against the 10,000 LOSSY
    test images, floor 0.004 [-0.002, 0.010], one seed (docs/results/cifar10-lossy.md).
    """
    base = edm_fashion_mnist_cpu()
    return replace(
        base,
        name="cifar10-lossy-cpu",
        data=Data("cifar10-jpeg75", flip=True),
        network=part("network", "unet", width=96, mult=(1, 2), blocks=2, attention=(1,), patch=2),
        draw=part("draw", "lognormal", mean=-0.9, std=1.2),
        train=replace(
            base.train,
            minutes=120.0,
            optimizer=part("optimizer", "muon", lr=0.01, rest_lr=1e-3, fewer_products=True),
            precision="bf16-winograd",
        ),
        ema=Ema(power=(0.05, 0.10), use="power-0.05", snapshots=16),
        sample=replace(base.sample, guidance=3.0, interval=(0.25, 4.0)),
        evaluate=Evaluate("resnet", 5000),
    )
