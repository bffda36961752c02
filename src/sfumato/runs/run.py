"""A run: the directory that training writes and that sampling and evaluating need no flags for.

It holds:

    RUN/recipe.json            the resolved recipe, fingerprint of data and run, hardware and versions
    RUN/metrics.jsonl          one record per log interval
    RUN/checkpoints/step-N/    see `runs.checkpoint`
    RUN/sheets/IMAGES.png      sample sheets during training
    RUN/snapshots/, averages/  power averages kept on the way, and those made of them (`runs.averages`)
    RUN/scores.jsonl, best/    scores while training, and the best weights as a run (`training.hooks.scores`)
    RUN/grids/NAME.json        grids computed for the run (`runs.computed`)
    RUN/samples/, RUN/results/ what later commands make
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from sfumato.core.classifier import NoisyClassifier
from sfumato.core.condition import Condition, Label, condition
from sfumato.core.denoiser import Counted, Denoiser, Preconditioned
from sfumato.core.find import nearest
from sfumato.core.reading import FileRefusedError, read_json, with_a_name
from sfumato.core.writing import check_writable
from sfumato.data.dataset import Dataset
from sfumato.data.streaming import Stream
from sfumato.latent.autoencoder import Autoencoder
from sfumato.latent.space import Latents, Pixels, Space
from sfumato.runs import averages, checkpoint
from sfumato.runs.check import check_sampling, sampled_shape
from sfumato.runs.checkpoint import Checkpoint
from sfumato.runs.conditions import lent, named
from sfumato.runs.guided import guide, weak_of
from sfumato.runs.kinds import CLASSIFIER, DENOISER, Kind, require
from sfumato.runs.labelled import asked_labels, kept_in
from sfumato.runs.making import Making
from sfumato.runs.plan import Plan, plan
from sfumato.runs.recipe import Recipe, RecipeError
from sfumato.runs.resolve import load_data
from sfumato.sources import Diffusion, Generated, Maker

MEANT = 3  # runs that a message names at most


def is_choice(value: Any) -> TypeGuard[Mapping[str, Any]]:
    """Return whether a value says how weights were chosen among others."""
    return isinstance(value, Mapping) and {"what", "by", "n", "candidates", "reference"} <= set(value)


def _check_about(tree: Mapping[str, Any]) -> None:
    """Refuse what a recipe.json holds beside its recipe if it is of another kind than was written."""
    wrong = [key for key in ("fingerprint", "imported") if not isinstance(tree.get(key, {}), Mapping)]
    if "selected" in tree and not is_choice(tree["selected"]):
        wrong.append("selected")
    if not isinstance(tree.get("floor_of", 0), int):
        wrong.append("floor_of")
    if wrong:
        raise FileRefusedError(f"{wrong[0]} is not what was written, got {str(tree[wrong[0]])[:40]!r}")


def _instead_of(path: Path) -> str:
    """Say which runs a person may have meant who named a folder that is none: those inside it, or a name like it."""
    inside = sorted(str(found.parent) for found in path.glob("*/recipe.json"))
    beside = {found.parent.name: str(found.parent) for found in path.parent.glob("*/recipe.json")}
    near = inside[:MEANT] or [beside[name] for name in difflib.get_close_matches(path.name, beside, n=1)]
    if near:
        return (
            f"Did you mean {' or '.join(near)}? `sfumato runs {path if inside else path.parent}` lists what is there."
        )
    return f"`sfumato train RECIPE --out {path}` makes one."


@dataclass(frozen=True)
class Run:
    """An opened run.

    Attributes:
        path: Its directory.
        recipe: Resolved.
        about: The rest of recipe.json: fingerprint, hardware.
        step: Of the checkpoint or snapshot to take; None for the newest whole checkpoint.
    """

    path: Path
    recipe: Recipe
    about: Mapping[str, Any]
    step: int | None = None

    @classmethod
    def open(cls, path: Path | str) -> Run:
        """Open a run directory.

        Raises:
            RecipeError: If it is not one.
        """
        path = with_a_name(Path(path))
        file = path / "recipe.json"
        if not file.exists():
            raise RecipeError(f"{path} is not a run (no recipe.json). {_instead_of(path)}")
        try:
            tree = read_json(file, finite=False)
            recipe = tree.pop("recipe")
            _check_about(tree)
        except (FileRefusedError, KeyError) as error:
            raise RecipeError(
                f"{file} is damaged ({type(error).__name__}: {error}). A copy of its recipe is in state.json of each "
                f"folder in {path / 'checkpoints'}; restore it from there."
            ) from None
        found = Recipe.from_json(recipe)
        kept_in(found, path)
        return cls(path, found, tree)

    @cached_property
    def plan(self) -> Plan:
        """The recipe's parts, each made once."""
        return plan(self.recipe)

    @property
    def trained(self) -> Plan:
        """The plan at the image size of training; images may be sampled at another."""
        shape = Recipe.from_json(self.checkpoint.state["recipe"]).shape
        return plan(replace(self.recipe, shape=shape or self.recipe.shape))

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names that can be asked for: the model's, or those of the classifier that guides it; () if none."""
        guide, shape = self.recipe.sample.classifier, self.recipe.shape
        if not (shape and shape.classes) and guide is not None:
            shape = Run.open(guide).recipe.shape
        return shape.classes if shape else ()

    def labels(self, n: int, data: Dataset | Stream | None = None, first: int = 0) -> tuple[Label | None, str]:
        """Return what n images are made under when they are scored together, and their prior in words.

        Arguments:
            n: Number of images.
            data: Real images, which lend their conditions to a model that is told more than a class.
            first: First seed of the images.
        """
        seeds = range(first, first + n)
        if self.recipe.data.told_more:
            return lent(self.recipe, data, seeds), "conditions of real images"
        return asked_labels(self.recipe, seeds, len(self.classes))

    @property
    def title(self) -> str:
        """What stands above a picture of the run: the name of its folder, as its owner called it, and its recipe."""
        name = self.path.resolve().name
        return name if name == self.recipe.name else f"{name} ({self.recipe.name})"

    @property
    def mark(self) -> str:
        """The mark by which the run knows its checkpoints; "" for an earlier version's."""
        return str(self.about.get("fingerprint", {}).get("run", ""))

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The newest whole checkpoint of this run, or that or the snapshot of the step asked for.

        Raises:
            CheckpointError: If there is none.
        """
        if self.step is not None:
            folders = [self.path / "checkpoints", self.path / "snapshots"]
            for folder in folders:
                if self.step in checkpoint.steps(folder):
                    asked = checkpoint.load(folder / f"step-{self.step}")
                    checkpoint.of_run(self.mark)(asked)
                    return asked
            has = ", ".join(map(str, sorted({s for folder in folders for s in checkpoint.steps(folder)}))) or "none"
            raise checkpoint.CheckpointError(
                f"{self.path} keeps no checkpoint of step {self.step}; it has {has}. train.keep says how many stay, "
                "and ema.snapshots how often averages are kept."
            )
        fits = checkpoint.of_run(self.mark, "network", "seen", "step", "recipe")
        found = checkpoint.latest(self.path / "checkpoints", fits=fits)
        if found is None:
            raise checkpoint.CheckpointError(f"{self.path} has no checkpoint yet; train it first.")
        return found

    def network(self, use: str | None = None) -> nn.Module:
        """Return the trained network, frozen.

        Arguments:
            use: Which average of the weights ("raw", "power-0.10", "post-0.080", ...); None for the recipe's choice.

        Raises:
            RecipeError: If that average was not kept.
        """
        (found, group), made = self.taken(use), self.trained
        self._check_fit(made.network, found.tensors[group])  # before weights of any size are made
        network = made.build_network()
        network.load_state_dict(found.tensors[group])
        return network.eval().requires_grad_(False)

    def _check_fit(self, network: nn.Module, saved: Mapping[str, Tensor]) -> None:
        """Refuse weights that are not those of a network; name the first: a recipe changed by hand, mostly."""
        own = network.state_dict()
        for name in sorted({*saved, *own}):
            have, want = ("none" if name not in each else str(tuple(each[name].shape)) for each in (saved, own))
            if have != want:
                raise RecipeError(
                    f"The weights in {self.checkpoint.path} are not those of the network in {self.path}/recipe.json: "
                    f"{name} has shape {have}, and the recipe's has {want}. Restore recipe.json; a copy of its recipe "
                    "is in the checkpoint's state.json."
                )

    def taken(self, use: str | None = None) -> tuple[Checkpoint, str]:
        """Return the checkpoint that holds an average, and its group there: the run's own, or one made after training.

        Arguments:
            use: Which average of the weights; None for the recipe's choice.

        Raises:
            RecipeError: If that average was not kept.
        """
        use = self.recipe.ema.use if use is None else use
        for name in averages.spellings(use, self.recipe.ema):
            stem = "network" if name == "raw" else f"ema-{name}"
            if stem in self.checkpoint.tensors:
                return self.checkpoint, stem
        if (made := self._made(use)) is not None:
            return averages.load(self.path, made, self.mark), "network"
        raise RecipeError(nearest("average", use, [*self.tracked, *averages.stored(self.path)]))

    def _made(self, use: str | None) -> str | None:
        """Return the name of an average made after training, in whatever spelling; None if it is none."""
        names = averages.spellings(self.recipe.ema.use if use is None else use, self.recipe.ema)
        return next((name for name in names if name in averages.stored(self.path)), None)

    @property
    def tracked(self) -> list[str]:
        """The averages that the checkpoint holds, "raw" first."""
        return ["raw", *(s.removeprefix("ema-") for s in self.checkpoint.tensors if s.startswith("ema-"))]

    def selected(self, use: str | None = None) -> list[Mapping[str, Any]]:
        """Return how these weights were chosen among others by a score, if they were: each choice names its reference.

        Arguments:
            use: Which average; None for the recipe's choice.
        """
        found = [self.about.get("selected")]
        if (made := self._made(use)) is not None:
            found.append(averages.load(self.path, made).state.get("selected"))
        return [choice for choice in found if is_choice(choice)]

    def denoiser(self, use: str | None = None, device: torch.device | str = "cpu") -> Preconditioned:
        """Return the trained denoiser.

        Arguments:
            use: Which average of the weights; None for the recipe's choice.
            device: Where to put it.

        Raises:
            RecipeError: If that average was not kept, or the run trained a classifier.
        """
        kind = self.plan.kind
        return self._model(kind if kind.walks else DENOISER, kind.instead.format(self.path), use, device)

    def weak_run(self) -> tuple[Run, str | None]:
        """Return the run of the weak model that `sample.autoguidance` names, and the average; None for its choice."""
        where = weak_of(self.recipe.sample.autoguidance or "")
        run = Run.open(where.folder) if where.folder else self
        return replace(run, step=where.step), where.use

    def weak(self, device: torch.device | str = "cpu") -> Preconditioned:
        """Return the weak model that `sample.autoguidance` names.

        Arguments:
            device: Where to put it.

        Raises:
            RecipeError, CheckpointError: If there is no such run, checkpoint or average.
        """
        run, use = self.weak_run()
        return run.denoiser(use, device)

    def classifier(self, use: str | None = None, device: torch.device | str = "cpu") -> NoisyClassifier:
        """Return the trained classifier of noisy images. Arguments and errors as for `denoiser`."""
        return self._model(CLASSIFIER, "Train one with objective=classifier.", use, device)

    def autoencoder(
        self, use: str | None = None, device: torch.device | str = "cpu", network: nn.Module | None = None
    ) -> Autoencoder:
        """Return the autoencoder that was trained, alone or in a joint model; it computes in float32.

        Arguments:
            use: Which average of the weights; None for the recipe's choice.
            device: Where to put it.
            network: A network to use in place of the run's own.

        Raises:
            RecipeError: If the run has none of its own, or that average was not kept.
        """
        coder = self.plan.kind.coder
        if coder is None:
            raise RecipeError(
                f"{self.path} trained {self.plan.kind.words}, which has no autoencoder of its own. Name a run of "
                "objective=autoencoder."
            )
        return Autoencoder(coder(self.network(use) if network is None else network)).to(device)

    def encoder_run(self) -> tuple[Run, str | None]:
        """Return the run of the autoencoder that `data.latent` names, and the average; None for its choice.

        It is looked for where the recipe says, then beside this run, and known by a hash of its weights.

        Raises:
            RecipeError: If it is gone or changed, with both hashes.
        """
        recipe, where = self.recipe, weak_of(self.recipe.data.latent or "", "data.latent")
        wanted, found = recipe.latent.weights if recipe.latent else "", "nothing"
        if not where.folder:
            raise RecipeError(f"data.latent={recipe.data.latent} names no run. Name one of objective=autoencoder.")
        wrong: ValueError | None = None
        for folder in (Path(where.folder), self.path.parent / Path(where.folder).name):
            if not (folder / "recipe.json").exists():
                continue
            try:
                run = replace(Run.open(folder), step=where.step)
                run.require_coder(f"data.latent={recipe.data.latent}")
                taken, group = run.taken(where.use)
            except ValueError as error:  # what stands there now; the coder may stand beside
                if not wanted:
                    raise
                wrong = wrong or error
                continue
            found = taken.digest(group)
            if wanted in ("", found):
                return run, where.use
        if wrong is not None:
            raise wrong
        if not wanted:
            raise RecipeError(
                f"data.latent={recipe.data.latent} is not a run (no recipe.json). Train an autoencoder of these images "
                f"first, for example: sfumato train autoencoder-digits --out {where.folder}"
            )
        raise RecipeError(
            f"{self.path} makes latents of the autoencoder {wanted[:16]}, and data.latent={recipe.data.latent} holds "
            f"{found[:16]}. Restore that run where it was, or beside this one."
        )

    def place(self, name: str) -> Path:
        """Return a folder of the run, such as results; long work asks for it first, so that none is done in vain.

        Raises:
            FileRefusedError: If it cannot be written.
        """
        return check_writable(self.path / name, "Copy the run to a folder of your own, and name the copy.", folder=True)

    def require_walk(self) -> None:
        """Refuse a run whose images no sampler walks to, with what can be done with it.

        Raises:
            RecipeError: If it trained a classifier, a GAN or an autoencoder.
        """
        kind = self.plan.kind
        if not kind.walks:
            require(DENOISER, self.recipe, str(self.path), kind.instead.format(self.path))

    def require_coder(self, field: str) -> None:
        """Refuse a run that is no autoencoder.

        Arguments:
            field: Of the recipe that names it, for the message.

        Raises:
            RecipeError: If it trained something else.
        """
        if self.plan.kind.coder is None or self.plan.kind.walks:
            raise RecipeError(
                f"{field} is a run of {self.recipe.name}, which trained {self.plan.kind.words}, not an autoencoder. "
                "Name a run of objective=autoencoder."
            )

    def require_pixels(self, who: str) -> None:
        """Refuse a run that walks latents, for what works on pixels only.

        Arguments:
            who: What does, for the message.

        Raises:
            RecipeError: If it walks latents.
        """
        if self.plan.in_latents:
            raise RecipeError(
                f"{who} works on pixels, and {self.path} walks latents, which an autoencoder decodes. Name a run that "
                "was trained on the images themselves."
            )

    def space(
        self, use: str | None = None, device: torch.device | str = "cpu", network: nn.Module | None = None
    ) -> Space:
        """Return the space that a sampler walks: images, or latents with the autoencoder that decodes them.

        Arguments:
            use: Which average of the weights, where the autoencoder is this run's own.
            device: Where to compute.
            network: A network to use in place of the run's own.

        Raises:
            RecipeError: If the autoencoder that `data.latent` names is gone or changed.
        """
        walked, latent, factor = sampled_shape(self.plan), self.plan.latent, self.plan.factor
        image = (self.plan.shape.channels, walked[1] * factor, walked[2] * factor)
        if latent is not None:
            if not latent.scale:
                raise RecipeError(
                    f"{self.path}/recipe.json holds no latent.shift and latent.scale. Restore the recipe."
                )
            other, average = self.encoder_run()
            return Latents(other.autoencoder(average, device), walked, image, latent.shift, latent.scale)
        if self.plan.kind.coder is not None:
            return Latents(self.autoencoder(use, device, network), walked, image)
        return Pixels(walked)

    def _model(self, kind: Kind, remedy: str, use: str | None, device: torch.device | str) -> Any:
        require(kind, self.recipe, str(self.path), remedy)
        return self.plan.model(self.network(use)).to(device)

    def source(
        self,
        *,
        use: str | None = None,
        device: torch.device | str = "cpu",
        denoiser: Denoiser | None = None,
        weak: Denoiser | None = None,
        network: nn.Module | None = None,
    ) -> Maker:
        """Return the run as an image source, made and guided as its recipe says.

        Arguments:
            use: Which average of the weights.
            device: Where to compute.
            denoiser: A denoiser to use in place of the run's own (for counting, say); not guided yet.
            weak: The same in place of the weak model that autoguidance names.
            network: A network to use in place of the run's own.

        Raises:
            RecipeError: If the run trained a classifier, or the settings do not fit the model, data or grid.
        """
        if denoiser is None and self.plan.kind.paired:
            return self._generated(network or self.network(use), device)
        return self.diffusion(use=use, device=device, denoiser=denoiser, weak=weak, network=network)

    def diffusion(
        self,
        *,
        use: str | None = None,
        device: torch.device | str = "cpu",
        denoiser: Denoiser | None = None,
        weak: Denoiser | None = None,
        network: nn.Module | None = None,
    ) -> Diffusion:
        """Return the run as a walk from noise to images, state by state. Arguments as for `source`.

        Raises:
            RecipeError: If the run trained no denoiser, or the settings do not fit the model, data or grid.
        """
        sample = self.recipe.sample
        if denoiser is None and network is not None:
            denoiser = self.plan.model(network).to(device)
        guided = denoiser or self.denoiser(use, device)
        check_sampling(self.plan)
        helper = Counted(weak or self.weak(device)) if sample.autoguidance is not None else None
        logits = None if sample.classifier is None else Run.open(sample.classifier).classifier(device=device)
        guided, sampler = guide(self.plan, guided, weak=helper, logits=logits)
        return Diffusion(
            guided,
            sampler,
            self.plan.grid,
            self.space(use, device, network),
            classes=len(self.classes),
            batch=sample.batch,
            device=device,
            weak=helper,
            vector=self.plan.vector,
            image=(self.plan.extra, *self.plan.image[1:]) if self.plan.extra else (),
            always_told=self.plan.always_told,
        )

    def _generated(self, network: nn.Module, device: torch.device | str) -> Generated:
        batch = self.recipe.sample.batch
        return Generated(network.to(device), self.plan.image, classes=len(self.classes), batch=batch, device=device)

    def named(
        self,
        seeds: Sequence[int],
        labels: Tensor | None,
        where: Mapping[str, float | str] | None = None,
        image: Tensor | None = None,
        lender: Dataset | None = None,
        picked: bool = True,
    ) -> Label | None:
        """Return what images are made under, as a person asks for it by name.

        Arguments:
            seeds: Seeds of the images.
            labels: Classes int64 (B,), or None.
            where: Attributes by name, the same for all images; those that are not named are not told.
            image: What the model is told beside, uint8 (c, h, w), the same for all images.
            lender: Real images that lend what is told and not given (`Run.lender`); None if they lend nothing.
            picked: Whether somebody chose the classes; else each is that of the image that lends.

        Raises:
            UnknownNameError, ValueError: For an attribute that it is not told, or an image of another size.
        """
        label = named(self.recipe, where or {}, labels, len(seeds), image)
        if lender is None:
            return label
        found, own = lent(self.recipe, lender, seeds), condition(label)
        assert isinstance(found, Condition)
        given = {} if own is None else own.parts
        parts = {**found.parts, **given, "label": (given if picked else found.parts).get("label")}
        return Condition(**parts)

    def lender(
        self, where: Mapping[str, float | str], image: Tensor | None, load: Callable[[], Dataset] | None = None
    ) -> Dataset | None:
        """Return the test images that lend what a person does not give; None if the model can do without.

        They lend the image that it is told beside, and attributes where it was always told those.

        Arguments:
            where: Attributes that are given.
            image: The image that is given.
            load: Loads the test images; None for where they usually are.
        """
        lacks_image = self.recipe.data.condition != "none" and image is None
        if not lacks_image and ("vector" not in self.plan.always_told or where):
            return None
        return load_data(self.recipe, "test") if load is None else load()

    def counted(
        self, use: str | None = None, device: torch.device | str = "cpu"
    ) -> tuple[Maker, Callable[[], tuple[int, int]]]:
        """Return the run's image source, and a function that says how many images its networks were asked about.

        Arguments:
            use: Which average of the weights.
            device: Where to compute.

        Returns:
            The source, and a function that returns the images asked of the run's own network and of the weak model
            that autoguidance names (0 without one).
        """
        if self.plan.kind.paired:
            generated = self._generated(self.network(use), device)
            return generated, lambda: (generated.rows, 0)
        return self.counted_walk(use, device)

    def counted_walk(
        self, use: str | None = None, device: torch.device | str = "cpu"
    ) -> tuple[Diffusion, Callable[[], tuple[int, int]]]:
        """Return the same of a run that walks from noise to an image, which a GAN does not."""
        counted = Counted(self.denoiser(use, device))
        source = self.diffusion(use=use, device=device, denoiser=counted)
        return source, lambda: (counted.rows, 0 if source.weak is None else source.weak.rows)

    def making(self, use: str | None = None) -> Making:
        """Return how images are made, for captions, file names, cards and results.

        Arguments:
            use: Which average of the weights; None for the recipe's choice.
        """
        origin = self.about.get("imported") or {}
        named = None if use is None else averages.canonical(use)
        return Making.of(self.recipe, named, self.taken(use)[0].state["seen"], origin.get("file", ""))

    def with_recipe(self, recipe: Recipe) -> Run:
        """Return the run with another recipe: other sampling or evaluation settings for the same weights."""
        other = replace(self, recipe=recipe)
        if "checkpoint" in vars(self):  # already read: training may go on and take its folder away
            vars(other)["checkpoint"] = self.checkpoint
        return other
