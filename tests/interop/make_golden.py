"""Make golden.npz and golden.json: outputs of the original networks that no earlier fixture holds.

    python -m tests.interop.make_golden GUIDED_DIFFUSION EDM SCORE_SDE_PYTORCH

Each argument is a folder with that project's repository (guided-diffusion 22e0df8, edm 008a4e5, score_sde_pytorch
cb1f359). Only their network files are run, on the CPU in float32, with the weights of `tests.parity.weights`.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.parity.weights import state_dict
from torch import nn

DATA = Path(__file__).parent / "data"
RULE: dict[str, Any] = {"seed": 1, "gain": 1.0}
CLASSIFIER: dict[str, Any] = {
    "image_size": 16, "in_channels": 3, "model_channels": 32, "out_channels": 10, "num_res_blocks": 1,
    "attention_resolutions": [2], "channel_mult": [1, 2], "num_heads": 1, "num_head_channels": 32,
    "use_scale_shift_norm": True, "resblock_updown": True, "use_new_attention_order": False,
}  # fmt: skip
SNAPSHOT: dict[str, Any] = {
    "precond": "EDMPrecond", "img_resolution": 16, "img_channels": 3, "label_dim": 0, "sigma_data": 0.5,
    "model_type": "SongUNet", "model_channels": 16, "channel_mult": [1, 2, 2], "num_blocks": 1, "attn_resolutions": [8],
    "dropout": 0.0, "channel_mult_emb": 4, "embedding_type": "fourier", "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}  # fmt: skip
SCORE: dict[str, Any] = {
    "nf": 16, "ch_mult": [1, 2, 2], "num_res_blocks": 1, "attn_resolutions": [8], "dropout": 0.0,
    "resamp_with_conv": True, "conditional": True, "fir": True, "fir_kernel": [1, 3, 3, 1], "skip_rescale": True,
    "resblock_type": "biggan", "progressive_combine": "sum", "embedding_type": "fourier", "init_scale": 0.0,
    "fourier_scale": 16, "scale_by_sigma": True, "nonlinearity": "swish", "sigma_min": 0.01, "sigma_max": 50.0,
    "num_scales": 100,
}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "classifier_spatial": ("classifier", CLASSIFIER | {"pool": "spatial"}),
    "classifier_spatial_v2": ("classifier", CLASSIFIER | {"pool": "spatial_v2"}),
    "edm_skip_skip": ("edm", SNAPSHOT | {"encoder_type": "skip", "decoder_type": "skip"}),
    "edm_residual_skip": ("edm", SNAPSHOT | {"encoder_type": "residual", "decoder_type": "skip"}),
    "edm_skip_standard": ("edm", SNAPSHOT | {"encoder_type": "skip", "decoder_type": "standard"}),
    "score_skip_skip": ("score", SCORE | {"progressive_input": "input_skip", "progressive": "output_skip"}),
    "score_residual_none": ("score", SCORE | {"progressive_input": "residual", "progressive": "none"}),
    "score_none_skip": ("score", SCORE | {"progressive_input": "none", "progressive": "output_skip"}),
}


@contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """Let a repository's modules be imported."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def classifier(folder: Path, config: dict[str, Any]) -> nn.Module:
    """Return guided-diffusion's classifier."""
    with importing_from(folder):
        from guided_diffusion.unet import EncoderUNetModel
    made: nn.Module = EncoderUNetModel(**{**config, "attention_resolutions": tuple(config["attention_resolutions"])})
    return made


def snapshot(folder: Path, config: dict[str, Any]) -> nn.Module:
    """Return EDM's preconditioner around its network."""
    with importing_from(folder):
        from training import networks
    made: nn.Module = getattr(networks, config["precond"])(**{k: v for k, v in config.items() if k != "precond"})
    return made


def score(folder: Path, config: dict[str, Any]) -> nn.Module:
    """Return NCSN++ of score_sde_pytorch, its filters in plain torch instead of compiled code."""
    with importing_from(folder):
        text = (folder / "op" / "upfirdn2d.py").read_text()
        plain = types.ModuleType("op")
        body = "import torch\nfrom torch.nn import functional as F\n" + text[text.index("def upfirdn2d_native") :]
        exec(compile(body, "upfirdn2d_native", "exec"), plain.__dict__)
        native = plain.__dict__["upfirdn2d_native"]
        plain.upfirdn2d = lambda x, kernel, up=1, down=1, pad=(0, 0): native(  # type: ignore[attr-defined]
            x, kernel, up, up, down, down, pad[0], pad[1], pad[0], pad[1]
        )
        sys.modules["op"] = plain
        from models.ncsnpp import NCSNpp
    spaces = {
        "model": types.SimpleNamespace(**config),
        "data": types.SimpleNamespace(image_size=16, num_channels=3, centered=True),
        "training": types.SimpleNamespace(continuous=True),
    }
    return NCSNpp(types.SimpleNamespace(**spaces))  # type: ignore[no-any-return]


def main(folders: list[Path]) -> None:
    """Write the two files."""
    makers: dict[str, tuple[Callable[[Path, dict[str, Any]], nn.Module], Path]] = dict(
        zip(("classifier", "edm", "score"), zip((classifier, snapshot, score), folders))
    )
    arrays: dict[str, np.ndarray] = {}
    cases: dict[str, Any] = {}
    for name, (kind, config) in CASES.items():
        make, folder = makers[kind]
        network = make(folder, config).eval()
        shapes = {n: list(t.shape) for n, t in network.state_dict().items()}
        kept = [n for n in shapes if n.endswith(("resample_filter", "sigmas"))]
        weights = state_dict(shapes, **RULE, kept=kept)
        network.load_state_dict({n: network.state_dict()[n] if n in kept else t for n, t in weights.items()})
        draw = np.random.Generator(np.random.Philox(7))
        x = torch.from_numpy(draw.standard_normal((2, 3, 16, 16)).astype(np.float32))
        number = torch.tensor([3.0, 700.0] if kind == "classifier" else [0.3, 5.0])
        if kind != "classifier":
            x = x * number[:, None, None, None]
        arrays |= {f"{name}/x": x.numpy(), f"{name}/number": number.numpy()}
        with torch.no_grad():
            arrays[f"{name}/out"] = network(x, number).numpy()
        cases[name] = {"kind": kind, "config": config, "weights_rule": RULE | {"kept": kept}, "state_dict": shapes}
    DATA.mkdir(exist_ok=True)
    np.savez_compressed(DATA / "golden.npz", **arrays)
    (DATA / "golden.json").write_text(json.dumps({"cases": cases}) + "\n")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:4]])
