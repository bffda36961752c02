"""No key of a configuration is dropped: with another value the import says something else, or is refused.

Each key that changes nothing is listed with the reason why it may not; what is listed and does change is an error, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from sfumato.interop.families import diffusers as of_diffusers
from sfumato.interop.families import edm as of_edm
from sfumato.interop.families import edm2 as of_edm2
from sfumato.interop.foreign import Foreign, open_foreign
from sfumato.interop.importing import recognise
from sfumato.interop.schedulers import CLASSES, read_scheduler
from sfumato.interop.tensors import ForeignError, Module

from .test_import import weights

OTHER_WORDS: dict[str, tuple[str, ...]] = {
    "beta_schedule": ("scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace"),
    "prediction_type": ("sample", "v_prediction", "flow_prediction"),
    "timestep_spacing": ("leading", "trailing", "linspace"),
    "variance_type": ("fixed_large", "fixed_small_log", "learned", "learned_range"),
    "solver_type": ("heun", "midpoint", "bh1", "bh2", "logrho"),
    "sigma_schedule": ("exponential",),
    "embedding_type": ("fourier",),
    "encoder_type": ("residual", "skip"),
    "decoder_type": ("skip",),
}


def others(key: str, value: Any) -> Iterator[Any]:
    """Yield values of a key that differ from the one given, of its type and of others."""
    if key in OTHER_WORDS:
        yield from (word for word in OTHER_WORDS[key] if word != value)
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from (2 * value + 1, value / 2 + 0.25) if math.isfinite(value) else (0.5,)
    elif isinstance(value, list | tuple):
        yield [*value, *value[-1:]] if value else [1]
    elif value is None:
        yield from (2, [0.01] * 1000)
    yield "elsewhere"


def silent(read: Callable[[Mapping[str, Any]], Any], config: Mapping[str, Any]) -> set[str]:
    """Return the keys that another value may be given without a word: what is read, notes and all, stays the same."""
    plain, found = read(config), set()
    for key, value in config.items():
        for other in others(key, value):
            if other == value:
                continue
            try:
                read_again = read({**config, key: other})
            except ForeignError:
                continue
            if read_again == plain:
                found.add(key)
    return found


# why a key of a scheduler may change nothing
ZERO_END = "the last step ends at the clean image, which is first order by nature"
OFF = "it qualifies an option that is refused when it is on"
IDLE_KEYS = {
    "dynamic_thresholding_ratio": OFF,
    "sample_max_value": OFF,
    "flow_shift": OFF,
    "time_shift_type": OFF,
    "base_shift": OFF,
    "max_shift": OFF,
    "base_image_seq_len": OFF,
    "max_image_seq_len": OFF,
    "euler_at_final": ZERO_END,
    "lower_order_final": "it lowers the order of walks of fewer than 15 steps, and an import takes 50",
}
EVENLY = {"steps_offset": "the spacing linspace, which these classes have by default, reads no offset; leading does"}
OF_CLASS: dict[str, dict[str, str]] = {
    "EDM": {"num_train_timesteps": "the number of levels of a table that no walk reads"},
    "DDPM": {"variance_type": "fixed_small and fixed_small_log are one variance"},
    "Heun": {"clip_sample_range": "clipping is off, and refused when it is on"} | EVENLY,
    "Euler": EVENLY,
    "LMS": EVENLY,
    "DPMSolverMultistep": EVENLY,
    "DEIS": EVENLY,
    "KDPM2": EVENLY,
    "UniPC": EVENLY,
}


@pytest.mark.parametrize("name", [n for n in CLASSES if CLASSES[n].read])
def test_no_key_of_a_scheduler_is_dropped(name: str) -> None:
    config = {"_class_name": name, **CLASSES[name].defaults}
    dropped = silent(lambda c: read_scheduler(c, False), config)
    allowed = {key for start, keys in OF_CLASS.items() if name.startswith(start) for key in keys}
    assert dropped <= set(IDLE_KEYS) | allowed, dropped - set(IDLE_KEYS) - allowed


def test_a_small_chain_reads_the_key_of_few_steps() -> None:
    """Below 15 steps the order of the last steps is lowered, or not, as the configuration says."""
    for name, order in (("DPMSolverMultistepScheduler", 3), ("DEISMultistepScheduler", 2)):
        config = {"_class_name": name, "num_train_timesteps": 10, "solver_order": order, "beta_end": 0.2}
        lowered, kept = (read_scheduler({**config, "lower_order_final": value}, False) for value in (True, False))
        assert lowered != kept, name


UNET = {
    **of_diffusers.FIXED,
    **of_diffusers.READ,
    "sample_size": 32,
    "block_out_channels": [32, 64, 64, 64],
    "attn_norm_num_groups": 32,
    "attention_head_dim": 16,
}
UNET_IDLE = {
    "num_train_timesteps": "it belongs to a learned embedding of time, which is refused",
    **dict.fromkeys(of_diffusers.IDLE - {"num_train_timesteps"}, "it tells how the average of the weights was made"),
}


def said(found: Foreign) -> Any:
    """Return all that an import says of an opened checkpoint."""
    made = recognise(found)
    return made.recipe, made.assumed, made.notes


def test_no_key_of_a_unet_is_dropped() -> None:
    def read(config: Mapping[str, Any]) -> Any:
        return said(Foreign(Path("folder"), {}, {"unet": config}))

    assert silent(read, UNET) == set()
    assert silent(read, UNET | dict.fromkeys(UNET_IDLE, 1)) == set(UNET_IDLE)
    with pytest.raises(ForeignError, match="brand_new"):
        read(UNET | {"brand_new": 1})


def snapshot(kind: str, outer: Mapping[str, Any], child: str, inner: str, options: Mapping[str, Any]) -> Foreign:
    """Return an opened snapshot of NVIDIA's code without tensors."""
    network = Module(inner, {"_init_kwargs": dict(options), "_modules": {}, "_parameters": {}, "_buffers": {}})
    state = {**outer, "_modules": {child: network}, "_parameters": {}, "_buffers": {}}
    return Foreign(Path("s.pkl"), {"ema": Module(kind, state)})


SONG = {**of_edm.SONG, "channel_mult_emb": 4, "channel_mult_noise": 1}
NETWORKS = {"SongUNet": SONG, "DhariwalUNet": of_edm.DHARIWAL}
OUTER: dict[str, dict[str, Any]] = {
    "EDMPrecond": {"sigma_data": 0.5, "sigma_min": 0, "sigma_max": math.inf},
    "VPPrecond": {"beta_d": 19.9, "beta_min": 0.1, "M": 1000, "epsilon_t": 1e-5},
    "VEPrecond": {"sigma_min": 0.02, "sigma_max": 100.0},
    "iDDPMPrecond": {"C_1": 0.001, "C_2": 0.008, "M": 1000},
}
SHAPE = {"img_resolution": 32, "img_channels": 3, "label_dim": 10}
HARMLESS = {
    "use_fp16": "the precision in which the original computes; here it is the run's own",
    "epsilon_t": "the smallest time of training; the sigma_min that follows from it is stored beside it, and read",
}


@pytest.mark.parametrize("kind", OUTER)
@pytest.mark.parametrize("inner", NETWORKS)
def test_no_key_of_an_edm_snapshot_is_dropped(kind: str, inner: str) -> None:
    def recipe(outer: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        return said(snapshot(kind, outer, "model", inner, options))

    outer, options = {**SHAPE, **OUTER[kind], "use_fp16": False}, NETWORKS[inner]
    assert silent(lambda config: recipe(outer, config), options) == set()
    assert silent(lambda config: recipe(config, options), outer) <= set(HARMLESS)
    with pytest.raises(ForeignError, match="brand_new=1 is not known"):
        recipe(outer, {**options, "brand_new": 1})


def test_the_levels_that_an_edm_network_knows_bound_its_grid() -> None:
    outer = {**SHAPE, **OUTER["VPPrecond"]}
    for stored, options in (
        ({"sigma_min": 0.001, "sigma_max": 152.0}, {}),
        ({"sigma_min": 0.01, "sigma_max": 60.0},) * 2,
    ):
        recipe, _, _ = said(snapshot("VPPrecond", {**outer, **stored}, "model", "SongUNet", SONG))
        assert recipe.sample.grid.options == {"steps": 18, **options}


def test_no_key_of_an_edm2_snapshot_is_dropped() -> None:
    def recipe(outer: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        return said(snapshot("Precond", outer, "unet", "UNet", options))

    outer = {**SHAPE, "sigma_data": 0.5, "use_fp16": True}
    options = {**of_edm2.OPTIONS, **of_edm2.FIXED}
    assert silent(lambda config: recipe(outer, config), options) == set()
    assert silent(lambda config: recipe(config, options), outer) <= set(HARMLESS)
    with pytest.raises(ForeignError, match="brand_new=1 is not known"):
        recipe(outer, {**options, "brand_new": 1})


def test_what_a_file_holds_beside_its_weights_is_said(tmp_path: Path) -> None:
    """An average or a trainer's options beside the state dict that is read are named, not passed over."""
    case = "adm_plain"
    tensors = weights(case)
    torch.save({"model": tensors, "ema": tensors, "opt": {}, "args": {"lr": 1}, "step": 3}, tmp_path / "both.pt")
    told = recognise(open_foreign(tmp_path / "both.pt", size=16)).notes
    assert told == ("left aside: ema, args, which the file holds beside model",)
    torch.save({"model": tensors, "step": 3}, tmp_path / "one.pt")
    assert not recognise(open_foreign(tmp_path / "one.pt", size=16)).notes
