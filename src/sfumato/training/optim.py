"""Optimisers as an axis of the recipe: each entry makes the optimisers of a network.

Adam is the choice of nearly every published configuration. `muon` steps hidden weights along their orthogonalised
momentum (`training.muon`) and leaves embeddings, biases, norms and the two end layers to AdamW. Decoupled weight decay
is 0 unless asked for: a silent 0.01 is a common way to deviate from a paper.

References:
    Kingma, Ba. Adam: A Method for Stochastic Optimization. 2015. https://arxiv.org/abs/1412.6980
    Loshchilov, Hutter. Decoupled Weight Decay Regularization. 2019. https://arxiv.org/abs/1711.05101
    Liu et al. On the Variance of the Adaptive Learning Rate and Beyond (RAdam). 2020. https://arxiv.org/abs/1908.03265
"""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer

from sfumato.core.bounds import Few, Fraction, Positive, Rate
from sfumato.training.muon import EACH, FEWER, Muon


def adam(
    network: nn.Module, lr: Rate = 2e-4, beta1: Fraction = 0.9, beta2: Fraction = 0.999, eps: Positive = 1e-8
) -> list[Optimizer]:
    """Adam without weight decay, the choice of DDPM, score SDE and EDM.

    Arguments:
        network: Whose weights move.
        lr: Learning rate: the size of a step.
        beta1: Memory of the gradient, in [0, 1).
        beta2: Memory of the squared gradient, in [0, 1).
        eps: Added to the divisor, against division by zero.
    """
    ps = _trained(network)
    return [torch.optim.Adam(ps, lr=lr, betas=(beta1, beta2), eps=eps, fused=_fused(ps))]


def adamw(
    network: nn.Module,
    lr: Rate = 1e-4,
    beta1: Fraction = 0.9,
    beta2: Fraction = 0.999,
    eps: Positive = 1e-8,
    weight_decay: Few = 0.0,
) -> list[Optimizer]:
    """Adam with decoupled weight decay; the decay is 0 unless you ask for it.

    Arguments:
        network: Whose weights move.
        lr: Learning rate: the size of a step.
        beta1: Memory of the gradient, in [0, 1).
        beta2: Memory of the squared gradient, in [0, 1).
        eps: Added to the divisor, against division by zero.
        weight_decay: Share of a weight that is taken away in a step, per unit of lr.
    """
    ps = _trained(network)
    betas = (beta1, beta2)
    return [torch.optim.AdamW(ps, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=_fused(ps))]


def radam(
    network: nn.Module, lr: Rate = 1e-4, beta1: Fraction = 0.9, beta2: Fraction = 0.999, eps: Positive = 1e-8
) -> list[Optimizer]:
    """Rectified Adam, the choice of consistency models.

    Arguments:
        network: Whose weights move.
        lr: Learning rate: the size of a step.
        beta1: Memory of the gradient, in [0, 1).
        beta2: Memory of the squared gradient, in [0, 1).
        eps: Added to the divisor, against division by zero.
    """
    return [torch.optim.RAdam(_trained(network), lr=lr, betas=(beta1, beta2), eps=eps)]


def muon(
    network: nn.Module,
    lr: Rate = 0.02,
    momentum: Fraction = 0.95,
    weight_decay: Few = 0.0,
    rest_lr: Rate = 1e-3,
    rest_beta2: Fraction = 0.99,
    fewer_products: bool = False,
) -> list[Optimizer]:
    """Muon on hidden convolutions, or on the matrices of a transformer's blocks; AdamW on the rest.

    Arguments:
        network: Whose weights move.
        lr: Step size of the matrices.
        momentum: Momentum of the matrices, in [0, 1).
        weight_decay: Decoupled decay of the matrices per unit of lr.
        rest_lr: Learning rate of the rest.
        rest_beta2: Memory of squared gradients of the rest.
        fewer_products: Whether matrices are orthogonalised in about half the time, the same to rounding.
    """
    parameters = _trained(network)
    convolutions = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d)]
    blocks = [block for stack in network.modules() if isinstance(stack, nn.ModuleList) for block in stack]
    in_blocks = [m.weight for block in blocks for m in block.modules() if isinstance(m, nn.Linear)]
    hidden = {id(w) for w in convolutions[1:-1] or in_blocks}
    matrices = [p for p in parameters if id(p) in hidden]
    others = [p for p in parameters if id(p) not in hidden]
    if not matrices or not others:
        raise ValueError(
            f"muon orthogonalises hidden convolutions or the matrices of blocks, and {type(network).__name__} has "
            f"{len(matrices)} of them among {len(parameters)} tensors. Set train.optimizer=adam."
        )
    rest = torch.optim.AdamW(others, lr=rest_lr, betas=(0.9, rest_beta2), weight_decay=0.0, fused=_fused(others))
    return [Muon(matrices, lr, momentum, weight_decay, FEWER if fewer_products else EACH), rest]


def _trained(network: nn.Module) -> list[nn.Parameter]:
    return [p for p in network.parameters() if p.requires_grad]


def _fused(parameters: list[nn.Parameter]) -> bool | None:
    """Ask for the optimiser in one kernel where all weights are on a GPU, whole; else torch chooses."""
    return all(type(p) is nn.Parameter and p.is_cuda for p in parameters) or None
