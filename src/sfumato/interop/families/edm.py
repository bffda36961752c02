"""EDM: snapshots of NVIDIA's code, a pickled preconditioner around SongUNet (DDPM++, NCSN++) or DhariwalUNet (ADM).

The snapshot carries the constructor's arguments, so nothing is guessed but the data. Its four preconditioners are rows
of our parts:

    EDMPrecond     target edm    c_in unit-variance   c_noise ln(sigma) / 4
    VPPrecond      target eps    c_in unit-circle     c_noise 999 t of the VP SDE
    VEPrecond      target score  c_in one             c_noise ln(sigma / 2)
    iDDPMPrecond   target eps    c_in unit-circle     c_noise the step of a cosine chain; half the output is variance
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sfumato.interop.foreign import Foreign, Imported, Rename, numbered
from sfumato.interop.keys import rename_dhariwal, rename_songunet
from sfumato.interop.tensors import ForeignError, Module
from sfumato.recipes._paper import FID_50K, RAW
from sfumato.runs.recipe import Part, Recipe, Sample, Shape, part

AUGMENTS = 9  # labels of EDM's augmentation
HEAD = 64  # channels of a head; blocks with fewer channels have no attention in the original


def edm(found: Foreign) -> Imported | None:
    """Snapshots of EDM's code: EDM, VP, VE and iDDPM preconditioning.

    Arguments:
        found: The opened checkpoint.

    Raises:
        ForeignError: For an option that none of our networks has.
    """
    module = found.module
    if module is None or module.kind not in PRECONDITIONERS:
        return None
    inner = module.state.get("_modules", {}).get("model")
    if not isinstance(inner, Module) or inner.kind not in NETWORKS:
        kind = inner.kind if isinstance(inner, Module) else "nothing"
        raise ForeignError(f"{found.path} holds {module.kind} around {kind}; known are {' and '.join(NETWORKS)}.")
    options = inner.state.get("_init_kwargs") or {}
    size, channels = int(module.state["img_resolution"]), int(module.state["img_channels"])
    shape = Shape(channels, size, size, numbered(int(module.state.get("label_dim") or 0)))
    data, line = found.data(shape)
    augment = int(options.get("augment_dim") or 0)
    if augment not in (0, AUGMENTS):
        raise ForeignError(f"{found.path} was trained with {augment} augmentation labels; 0 and {AUGMENTS} are known.")
    network, rename = NETWORKS[inner.kind](options, size)
    data = replace(data, augment=0.12 if augment else 0.0)
    assumed = [line]
    if augment:
        assumed.append("data.augment=0.12: the chance of a change does not matter to sampling")
    steps = 18 if size <= 32 else 40
    base = Recipe(
        name="imported-edm",
        data=data,
        network=network,
        objective=part("objective", "denoising", label_dropout=float(options.get("label_dropout") or 0.0)),
        sigma_data=0.5,
        ema=RAW,
        sample=Sample(part("sampler", "heun"), part("grid", "karras", steps=steps)),
        evaluate=FID_50K,
        shape=shape,
    )
    recipe = PRECONDITIONERS[module.kind](base, module.state)
    return Imported("edm", recipe, module.tensors(), rename, tuple(assumed))


def _edm(base: Recipe, state: Mapping[str, Any]) -> Recipe:
    return replace(base, sigma_data=float(state["sigma_data"]))


def _vp(base: Recipe, state: Mapping[str, Any]) -> Recipe:
    low, high = float(state["beta_min"]), float(state["beta_min"]) + float(state["beta_d"])
    scale = float(state.get("M", 1000)) - 1
    return replace(
        base,
        schedule=part("schedule", "vp", beta_min=low, beta_max=high),
        target=part("target", "eps"),
        c_noise=part("conditioning", "vp-time", beta_min=low, beta_max=high, scale=scale),
        c_in="unit-circle",
        draw=part("draw", "uniform", t_min=1e-5),
        weighting=part("weighting", "simple"),
    )


def _ve(base: Recipe, state: Mapping[str, Any]) -> Recipe:
    low, high = float(state["sigma_min"]), float(state["sigma_max"])
    return replace(
        base,
        schedule=part("schedule", "ve", sigma_min=low, sigma_max=high),
        target=part("target", "score"),
        c_noise=part("conditioning", "log-nsr", factor=0.5),
        c_in="one",
        draw=part("draw", "uniform"),
        weighting=part("weighting", "simple"),
        sample=replace(base.sample, grid=base.sample.grid.with_options(sigma_min=low, sigma_max=high)),
    )


def _iddpm(base: Recipe, state: Mapping[str, Any]) -> Recipe:
    steps, offset, clip = int(state["M"]), float(state.get("C_2", 0.008)), 1 - float(state.get("C_1", 0.001))
    return replace(
        base,
        schedule=part("schedule", "cosine", steps=steps, s=offset, clip=clip),
        target=part("target", "eps"),
        c_noise=part("conditioning", "index"),
        c_in="unit-circle",
        variance="range",
        draw=part("draw", "uniform"),
        weighting=part("weighting", "simple"),
        objective=base.objective.with_name("hybrid").with_options(**base.objective.options),
        sample=Sample(part("sampler", "heun"), part("grid", "iddpm", steps=base.sample.grid.options["steps"])),
    )


PRECONDITIONERS: dict[str, Callable[[Recipe, Mapping[str, Any]], Recipe]] = {
    "EDMPrecond": _edm,
    "VPPrecond": _vp,
    "VEPrecond": _ve,
    "iDDPMPrecond": _iddpm,
}


def _common(options: Mapping[str, Any], known: Mapping[str, Any], kind: str) -> None:
    """Refuse an option that our network does not have, unless it has its default."""
    for key, ours in known.items():
        if key in options and options[key] != ours:
            raise ForeignError(f"A {kind} with {key}={options[key]!r} has no network here; only {ours!r} has.")


def _songunet(options: Mapping[str, Any], size: int) -> tuple[Part, Rename]:
    fourier = options.get("embedding_type", "positional") == "fourier"
    path = options.get("encoder_type", "standard") == "residual"
    fixed = {"channel_mult_emb": 4, "decoder_type": "standard", "channel_mult_noise": 2 if fourier else 1}
    _common({"channel_mult_noise": 1, **options}, fixed, "SongUNet")
    if options.get("encoder_type", "standard") not in ("standard", "residual"):
        raise ForeignError(f"A SongUNet with encoder_type={options['encoder_type']!r} has no network here.")
    network = part(
        "network",
        "songunet",
        width=int(options.get("model_channels", 128)),
        mult=tuple(options.get("channel_mult", (1, 2, 2, 2))),
        blocks=int(options.get("num_blocks", 4)),
        attention=_sides(options.get("attn_resolutions", (16,)), size, len(options.get("channel_mult", (1, 2, 2, 2)))),
        dropout=float(options.get("dropout", 0.1)),
        fourier=fourier,
        taps=tuple(options.get("resample_filter", (1, 1))),
        image_path=path,
    )
    return network, rename_songunet


def _dhariwal(options: Mapping[str, Any], size: int) -> tuple[Part, Rename]:
    _common(options, {}, "DhariwalUNet")
    embedding = int(options.get("channel_mult_emb", 4))
    width, mult = int(options.get("model_channels", 192)), tuple(options.get("channel_mult", (1, 2, 3, 4)))
    sides = _sides(options.get("attn_resolutions", (32, 16, 8)), size, len(mult))
    wide = {size >> i for i, m in enumerate(mult) if width * m >= HEAD}
    network = part(
        "network",
        "adm",
        width=width,
        mult=mult,
        blocks=int(options.get("num_blocks", 3)),
        attention=tuple(side for side in sides if side in wide),
        bridge=width * mult[-1] >= HEAD,
        **({} if embedding == 4 else {"embedding": embedding}),
        dropout=float(options.get("dropout", 0.1)),
        head_width=HEAD,
        group_width=4,
    )
    return network, rename_dhariwal


def _sides(attention: Any, size: int, levels: int) -> tuple[int, ...]:
    """Return those of the original's attention sides that the network has; it ignores others."""
    return tuple(int(side) for side in attention if side in {size >> i for i in range(levels)})


NETWORKS: dict[str, Callable[[Mapping[str, Any], int], tuple[Part, Rename]]] = {
    "SongUNet": _songunet,
    "DhariwalUNet": _dhariwal,
}
