"""A folder of pictures becomes a dataset: every bad file is listed, the rest is prepared once, a model is trained."""

from pathlib import Path

import numpy as np
from PIL import Image

from sfumato.cli import main

OUT = Path("runs/examples/own-data")
IMAGES = 20_000  # training images seen

photos = OUT / "photos"  # your own folder; a sub-folder is a class
for kind, red in (("red", 220), ("blue", 30)):
    (photos / kind).mkdir(parents=True, exist_ok=True)
    for i in range(60):
        draw = np.random.default_rng((red, i))
        colour = np.array([red, 90, 250 - red]) + draw.normal(0, 12, (20, 24, 3))
        Image.fromarray(colour.clip(0, 255).astype(np.uint8)).save(photos / kind / f"{i:03d}.png")

main(["data", "check", str(photos), "--size", "16"])
prepared = OUT / "photos-16.zip"
if not prepared.exists():
    main(["data", "prepare", str(photos), str(prepared), "--size", "16"])
fields = [f"data.name=zip:{prepared}", f"train.images={IMAGES}", "evaluate.extractor=pixels"]
main(["train", "edm-digits", *fields, "--out", str(OUT / "run")])
main(["sample", str(OUT / "run"), "--out", str(OUT / "samples.png")])
