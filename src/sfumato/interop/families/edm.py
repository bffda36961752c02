"""EDM: snapshots of NVIDIA's code, a pickled preconditioner around SongUNet (DDPM++, NCSN++) or DhariwalUNet (ADM).

The snapshot carries the constructor's arguments, so nothing is guessed but the data. Its four preconditioners are rows
of our parts:

    EDMPrecond     target edm    c_in unit-variance   c_noise ln(sigma) / 4
    VPPrecond      target eps    c_in unit-circle     c_noise 999 t of the VP SDE
    VEPrecond      target score  c_in one             c_noise ln(sigma / 2)
    iDDPMPrecond   target eps    c_in unit-circle     c_noise the step of a cosine chain; half the output is variance
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from numbers import Real
from typing import Any

from sfumato.interop.foreign import Foreign, Imported, Rename, numbered
from sfumato.interop.keys import rename_dhariwal, rename_songunet
from sfumato.interop.tensors import ForeignError, Module
from sfumato.recipes._paper import FID_50K, RAW
from sfumato.runs.recipe import Part, Recipe, Sample, Shape, part

AUGMENTS = 9  # labels of EDM's augmentation
LEVELS = (0.002, 80.0)  # of EDM's sampler, where the network knows them
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
    outer = {  # what the preconditioner passes on
        "img_resolution": size,
        "in_channels": channels,
        "out_channels": channels * (2 if module.kind == "iDDPMPrecond" else 1),
        "label_dim": int(module.state.get("label_dim") or 0),
    }
    network, rename = NETWORKS[inner.kind](options, outer, size)
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


def _within(sample: Sample, state: Mapping[str, Any]) -> Sample:
    """Return the sampling kept to the levels that the network knows, as the original's sampler keeps it."""
    low, high = float(state.get("sigma_min", 0)), float(state.get("sigma_max", math.inf))
    if not low < high or low >= LEVELS[1] or high <= LEVELS[0]:
        raise ForeignError(
            f"A network that knows noise from sigma_min={low:g} to sigma_max={high:g} is not sampled here."
        )
    narrower = ({"sigma_min": low} if low > LEVELS[0] else {}) | ({"sigma_max": high} if high < LEVELS[1] else {})
    return replace(sample, grid=sample.grid.with_options(**narrower)) if narrower else sample


def _edm(base: Recipe, state: Mapping[str, Any]) -> Recipe:
    return replace(base, sigma_data=float(state["sigma_data"]), sample=_within(base.sample, state))


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
        sample=_within(base.sample, state),
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


def checked(options: Mapping[str, Any], defaults: Mapping[str, Any], fixed: Mapping[str, Any], kind: str) -> Any:
    """Return the original's arguments, complete; refuse those that are not known, or that our network does not have.

    Arguments:
        options: The arguments that the snapshot carries.
        defaults: Every argument that is read, with the original's default.
        fixed: Every other one, with the only value that it may have.
        kind: Name of the network.
    """
    for key, value in options.items():
        if key not in defaults and key not in fixed:
            raise ForeignError(f"A {kind} with {key}={value!r} is not known; no network can be named.")
        if key in fixed and value != fixed[key]:
            raise ForeignError(f"A {kind} with {key}={value!r} has no network here; only {fixed[key]!r} has.")
        whole = isinstance(value, Real) and float(value).is_integer()
        if isinstance(defaults.get(key), int) and not whole:
            raise ForeignError(f"A {kind} with {key}={value!r} is not valid; it is a whole number.")
    return {**defaults, **options}


ENCODERS: dict[str, dict[str, bool]] = {"standard": {}, "residual": {"image_path": True}, "skip": {"image_skip": True}}
DECODERS: dict[str, dict[str, bool]] = {"standard": {}, "skip": {"image_out": True}}
EMBEDDINGS: dict[str, bool] = {"positional": False, "fourier": True}
SONG: dict[str, Any] = {
    "model_channels": 128, "channel_mult": (1, 2, 2, 2), "num_blocks": 4, "attn_resolutions": (16,), "dropout": 0.1,
    "embedding_type": "positional", "encoder_type": "standard", "decoder_type": "standard", "resample_filter": (1, 1),
    "augment_dim": 0, "label_dropout": 0.0,
}  # fmt: skip
DHARIWAL: dict[str, Any] = {
    "model_channels": 192, "channel_mult": (1, 2, 3, 4), "num_blocks": 3, "attn_resolutions": (32, 16, 8),
    "dropout": 0.1, "channel_mult_emb": 4, "augment_dim": 0, "label_dropout": 0.0,
}  # fmt: skip


def _one_of(options: Mapping[str, Any], key: str, choices: Mapping[str, Any]) -> Any:
    if options[key] not in choices:
        raise ForeignError(f"A SongUNet with {key}={options[key]!r} has no network here; {', '.join(choices)} have.")
    return choices[options[key]]


def _songunet(given: Mapping[str, Any], outer: Mapping[str, Any], size: int) -> tuple[Part, Rename]:
    fourier = given.get("embedding_type") == "fourier"
    fixed = {"channel_mult_emb": 4, "channel_mult_noise": 2 if fourier else 1, **outer}
    options = checked({"channel_mult_noise": 1, **given}, SONG, fixed, "SongUNet")
    mult = tuple(options["channel_mult"])
    network = part(
        "network",
        "songunet",
        width=int(options["model_channels"]),
        mult=mult,
        blocks=int(options["num_blocks"]),
        attention=_sides(options["attn_resolutions"], size, len(mult)),
        dropout=float(options["dropout"]),
        fourier=_one_of(options, "embedding_type", EMBEDDINGS),
        taps=tuple(options["resample_filter"]),
        **_one_of(options, "encoder_type", ENCODERS),
        **_one_of(options, "decoder_type", DECODERS),
    )
    return network, rename_songunet


def _dhariwal(given: Mapping[str, Any], outer: Mapping[str, Any], size: int) -> tuple[Part, Rename]:
    options = checked(given, DHARIWAL, outer, "DhariwalUNet")
    embedding = int(options["channel_mult_emb"])
    width, mult = int(options["model_channels"]), tuple(options["channel_mult"])
    sides = _sides(options["attn_resolutions"], size, len(mult))
    wide = {size >> i for i, m in enumerate(mult) if width * m >= HEAD}
    network = part(
        "network",
        "adm",
        width=width,
        mult=mult,
        blocks=int(options["num_blocks"]),
        attention=tuple(side for side in sides if side in wide),
        bridge=width * mult[-1] >= HEAD,
        **({} if embedding == 4 else {"embedding": embedding}),
        dropout=float(options["dropout"]),
        head_width=HEAD,
        group_width=4,
    )
    return network, rename_dhariwal


def _sides(attention: Any, size: int, levels: int) -> tuple[int, ...]:
    """Return those of the original's attention sides that the network has; it ignores others."""
    return tuple(int(side) for side in attention if side in {size >> i for i in range(levels)})


NETWORKS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any], int], tuple[Part, Rename]]] = {
    "SongUNet": _songunet,
    "DhariwalUNet": _dhariwal,
}
