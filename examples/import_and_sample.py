"""A checkpoint of another project becomes a model, sampled in few steps. Give a file: EDM, ADM, DDPM, score SDE ..."""

import sys
from pathlib import Path

import torch

import sfumato
from sfumato.interop.importing import import_run
from sfumato.networks.ddpm import ddpm

OUT = Path("runs/examples/imported")
OUT.mkdir(parents=True, exist_ok=True)
file, told = (Path(sys.argv[1]), {}) if len(sys.argv) > 1 else (OUT / "tiny.pt", {"size": 16})
if not file.exists():  # without a file of yours, a tiny untrained DDPM as pytorch_diffusion stores it
    names = {"embedder.dense1": "temb.dense.0", "embedder.dense2": "temb.dense.1", "encoder.conv_in": "conv_in"}
    names |= {"encoder.levels.0.steps.0.block": "down.0.block.0", "decoder.levels.0.steps.0.block": "up.0.block.0"}
    names |= {"decoder.levels.0.steps.1.block": "up.0.block.1", "encoder.middle.0.block": "mid.block_1"}
    names |= {"encoder.middle.0.attention": "mid.attn_1", "encoder.middle.1.block": "mid.block_2"}
    names |= {"modulation": "temb_proj", "shortcut": "nin_shortcut", "attn_1.out": "attn_1.proj_out"}
    foreign = {}
    for name, tensor in ddpm(size=16, width=32, mult=(1,), blocks=1, attention=()).state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        parts = "qkv" if ".qkv." in name else ""
        foreign |= {name.replace("qkv", p): t for p, t in zip(parts, tensor.chunk(3))} if parts else {name: tensor}
    torch.save(foreign, file)

run = OUT / f"{file.stem}-run"
if not run.exists():
    made = import_run(file, run, **told)
    print(made.found.family, f"{made.parameters:,} parameters", *made.found.assumed, sep="\n  ")
model = sfumato.load(run).sampled("ddim", grid="trailing", steps=10)
print(model, model.sample(8).save(OUT / "samples.png"))
