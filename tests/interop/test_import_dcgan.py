"""DCGANs in the layers of PyTorch's example, written here from torch.nn alone, keep their output as runs of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from sfumato.cli import main
from sfumato.interop.importing import import_run
from sfumato.interop.tensors import ForeignError
from sfumato.runs.recipe import RecipeError
from sfumato.training import loop

TOLERANCE = 1e-5


class Sequence(nn.Module):
    """The example's way to name its layers: everything in `main`."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.main = nn.Sequential(*layers)


def net_g(latent: int = 10, up: tuple[int, ...] = (16, 8, 4), channels: int = 3, side: int = 4) -> Sequence:
    layers: list[nn.Module] = [nn.ConvTranspose2d(latent, up[0], side, 1, 0, bias=False)]
    for width, after in zip(up, (*up[1:], channels)):
        layers += [nn.BatchNorm2d(width), nn.ReLU(True), nn.ConvTranspose2d(width, after, 4, 2, 1, bias=False)]
    return filled(Sequence(*layers, nn.Tanh()), seed=1)


def net_d(down: tuple[int, ...] = (6, 12, 18), channels: int = 3, side: int = 4) -> Sequence:
    layers: list[nn.Module] = [nn.Conv2d(channels, down[0], 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
    for width, after in zip(down, down[1:]):
        norm = nn.BatchNorm2d(after)
        layers += [nn.Conv2d(width, after, 4, 2, 1, bias=False), norm, nn.LeakyReLU(0.2, True)]
    return filled(Sequence(*layers, nn.Conv2d(down[-1], 1, side, 1, 0, bias=False), nn.Sigmoid()), seed=2)


def filled(net: Sequence, seed: int) -> Sequence:
    """Put every weight and running statistic away from where it starts; what the layers say stays of order 1."""
    draws = generator(seed)
    for module in net.modules():
        for name, value in module.state_dict().items() if not list(module.children()) else ():
            drawn = torch.randn(value.shape, generator=draws)
            if isinstance(module, nn.ConvTranspose2d):
                value.copy_(0.7 * drawn / len(value) ** 0.5)
            elif isinstance(module, nn.Conv2d):
                value.copy_(2 * drawn / value[0].numel() ** 0.5)
            elif name == "num_batches_tracked":
                value.fill_(7)
            else:
                value.copy_(0.3 * drawn if name in ("bias", "running_mean") else 0.5 * drawn.abs() + 0.7)
    return net.eval().requires_grad_(False)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def latents(count: int, latent: int = 10) -> Tensor:
    return torch.randn(count, latent, generator=generator(3))


def error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


SHAPES = {  # latent, up, down, channels, side of the coarsest map -> size
    "64 pixels": (100, (32, 16, 8, 4), (4, 8, 16, 32), 3, 4, 64),
    "28 pixels, gray": (8, (12, 6), (5, 7), 1, 7, 28),
    "8 pixels, one layer": (6, (9,), (5,), 2, 4, 8),
}


@pytest.mark.parametrize("case", SHAPES)
def test_both_sides_of_a_folder_keep_their_output(case: str, tmp_path: Path) -> None:
    latent, up, down, channels, side, size = SHAPES[case]
    g, d = net_g(latent, up, channels, side), net_d(down, channels, side)
    (tmp_path / "original").mkdir()
    torch.save(g.state_dict(), tmp_path / "original" / "netG_epoch_24.pth")
    torch.save(nn.DataParallel(d).state_dict(), tmp_path / "original" / "netD_epoch_24.pth")
    made = import_run(tmp_path / "original", tmp_path / "run")
    recipe, network = made.run.recipe, made.run.network()
    assert recipe.network.options == {"latent": latent, "up": up, "down": down, "prior": "normal"}
    assert recipe.shape is not None and (recipe.shape.channels, recipe.shape.height) == (channels, size)
    z = latents(4, latent)
    theirs = g.main(z[:, :, None, None])
    assert theirs.shape == (4, channels, size, size)
    assert error(network(z), theirs) < TOLERANCE
    x = torch.linspace(-1, 1, 4).reshape(-1, 1, 1, 1) + 0.3 * torch.randn(theirs.shape, generator=generator(4))
    judged = network.discriminator(x)
    assert error(judged, d.main[:-1](x).flatten()) < TOLERANCE
    assert error(judged.sigmoid(), d.main(x).flatten()) < TOLERANCE
    assert judged.sigmoid().std() > 0.01  # the comparison would see other weights
    assert not any("untrained" in note for note in made.found.notes)
    assert made.parameters == sum(p.numel() for p in (*g.parameters(), *d.parameters()))


def forms(g: Sequence, d: Sequence) -> dict[str, Callable[[Path], Path]]:
    """Return the ways in which one file holds both sides."""

    def saved(tree: object) -> Callable[[Path], Path]:
        def write(folder: Path) -> Path:
            torch.save(tree, folder / "gan.pt")
            return folder / "gan.pt"

        return write

    def flat(folder: Path) -> Path:
        pair = {f"{name}.{k}": v for name, net in (("netG", g), ("netD", d)) for k, v in net.state_dict().items()}
        save_file(pair, folder / "gan.safetensors")
        return folder / "gan.safetensors"

    optimizer = torch.optim.Adam(g.parameters()).state_dict()
    return {
        "nested": saved({"epoch": 3, "netG": g.state_dict(), "netD": d.state_dict(), "optimizerG": optimizer}),
        "other names": saved({"generator": g.main.state_dict(), "discriminator": d.main.state_dict()}),
        "flat": flat,
    }


@pytest.mark.parametrize("form", ["nested", "other names", "flat"])
def test_one_file_fills_both_sides(form: str, tmp_path: Path) -> None:
    g, d = net_g(), net_d()
    network = import_run(forms(g, d)[form](tmp_path), tmp_path / "run").run.network()
    z = latents(3)
    images = g.main(z[:, :, None, None])
    assert error(network(z), images) < TOLERANCE
    assert error(network.discriminator(images).sigmoid(), d.main(images).flatten()) < TOLERANCE


def test_a_generator_alone_is_sampled_by_the_command_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    g = net_g()
    torch.save(nn.DataParallel(g).state_dict(), tmp_path / "netG.pth")
    run = tmp_path / "run"
    assert main(["import", str(tmp_path / "netG.pth"), "--out", str(run)]) == 0
    out = capsys.readouterr().out
    assert f"{sum(p.numel() for p in g.parameters()):,} parameters, all placed" in out
    assert "assumed: network.prior=normal" in out and "dcgan(down=4,8,16, latent=10, up=16,8,4)" in out
    assert "note: the file has no discriminator: the run's is untrained" in out
    assert json.loads((run / "recipe.json").read_text())["imported"]["untrained"] == ["discriminator"]
    assert main(["sample", str(run), "--n", "2", "--images", str(tmp_path / "images")]) == 0
    files = sorted((tmp_path / "images").rglob("*.png"))
    from sfumato.runs.run import Run

    z = Run.open(run).network().latents(torch.tensor([0, 1]))
    wanted = ((g.main(z[:, :, None, None]) + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
    for file, image in zip(files, wanted, strict=True):
        assert np.abs(np.asarray(Image.open(file), dtype=np.float64) - image).max() <= 1


def test_an_imported_gan_is_not_trained_on_in_silence(tmp_path: Path) -> None:
    torch.save(net_g(8, (8,), 1, 4).state_dict(), tmp_path / "netG.pth")
    run = import_run(tmp_path / "netG.pth", tmp_path / "run", overrides=["data.name=digits", "data.size=none"]).run
    before = (run.path / "recipe.json").read_bytes()
    with pytest.raises(RecipeError, match="imported weights without an optimiser.* a GAN begins afresh"):
        loop.train(run.recipe, run.path, quiet=True, allow=("data", "fingerprint"))
    with pytest.raises(RecipeError, match="a GAN begins afresh"):
        beginning = replace(run.recipe, train=replace(run.recipe.train, start=str(run.path)))
        loop.train(beginning, tmp_path / "other", quiet=True)
    assert (run.path / "recipe.json").read_bytes() == before


def test_a_generator_alone_is_scored(tmp_path: Path) -> None:
    torch.save(net_g(8, (8,), 1, 4).state_dict(), tmp_path / "netG.pth")
    fields = ["data.name=digits", "data.size=none", "data.test=0.2", "evaluate.extractor=pixels"]
    assert main(["import", str(tmp_path / "netG.pth"), "--out", str(tmp_path / "run"), *fields]) == 0
    assert main(["evaluate", str(tmp_path / "run"), "--n", "200"]) == 0
    assert list((tmp_path / "run" / "results").iterdir())


def test_files_of_old_torch_without_counters_come_in(tmp_path: Path) -> None:
    g = net_g()
    old = {name: value for name, value in g.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "netG.pth")
    network = import_run(tmp_path / "netG.pth", tmp_path / "run").run.network()
    assert error(network(latents(2)), g.main(latents(2)[:, :, None, None])) < TOLERANCE


def test_half_precision_becomes_single_and_is_told(tmp_path: Path) -> None:
    g = net_g()
    torch.save(g.half().state_dict(), tmp_path / "netG.pth")
    made = import_run(tmp_path / "netG.pth", tmp_path / "run")
    assert "16 tensors of float16 became float32" in " ".join(made.found.notes)
    network = made.run.network()
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert error(network(latents(2)), g.float().main(latents(2)[:, :, None, None])) < TOLERANCE


@pytest.mark.parametrize("side", ["netG", "netD"])
@pytest.mark.parametrize("change", ["bias", "a layer more", "missing", "no counter", "another shape"])
def test_what_does_not_fit_is_refused_and_nothing_is_written(side: str, change: str, tmp_path: Path) -> None:
    pair = {"netG": net_g().state_dict(), "netD": net_d().state_dict()}
    state, norm = pair[side], "main.4" if side == "netG" else "main.6"
    if change == "bias":
        state["main.0.bias"] = torch.zeros(16)
    elif change == "a layer more":
        state["main.20.weight"] = torch.zeros(3, 3, 4, 4)
    elif change == "missing":
        del state[f"{norm}.running_mean"]
    elif change == "no counter":
        del state[f"{norm}.num_batches_tracked"]
    else:
        state[f"{norm}.bias"] = torch.zeros(5)
    torch.save(pair, tmp_path / "gan.pt")
    with pytest.raises(ForeignError, match=f"{side}|do not fit"):
        import_run(tmp_path / "gan.pt", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_no_such_pair_is_refused_with_its_reason(tmp_path: Path) -> None:
    def refused(tree: object, match: str, size: int | None = None) -> None:
        torch.save(tree, tmp_path / "gan.pt")
        with pytest.raises(ForeignError, match=match):
            import_run(tmp_path / "gan.pt", tmp_path / "run", size=size)
        assert not (tmp_path / "run").exists()

    g, d = net_g().state_dict(), net_d().state_dict()
    refused(d, "a discriminator only")
    refused({"netG": g, "netD": net_d((6, 12)).state_dict()}, "makes images of 3x32x32 .* judges 3x16x16")
    refused({"netG": g, "netD": net_d(channels=1).state_dict()}, "judges 1x32x32")
    refused({"netG": g, "ema": g}, r"more than one network of a side \(netG.main, ema.main\)")
    refused({"netG": g, "netE": {"head.weight": torch.zeros(2)}}, "left over 1 tensors, the first netE.head.weight")
    refused(g, "make images of side 32; got --size 64", size=64)
    wide = dict(g)
    wide["main.3.weight"] = torch.zeros(16, 8, 5, 5)
    refused(wide, "a kernel of 5x5")
    features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
    refused(features.state_dict(), "of no family that is known")


def test_a_folder_of_several_epochs_asks_for_one(tmp_path: Path) -> None:
    with pytest.raises(ForeignError, match="no folder of diffusers or a GAN"):
        import_run(tmp_path, tmp_path / "run")
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(ForeignError, match="is a run already. Use it as it is: sfumato sample"):
        import_run(tmp_path, tmp_path / "run")
    for epoch in (0, 1):
        torch.save(net_g().state_dict(), tmp_path / f"netG_epoch_{epoch}.pth")
    with pytest.raises(ForeignError, match=r"2 files netG \(netG_epoch_0.pth, netG_epoch_1.pth\)"):
        import_run(tmp_path, tmp_path / "run")
