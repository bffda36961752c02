"""Datasets are found by name; unknown names, options and impossible requests say what would work."""

import inspect
import typing

import pytest
import torch

from sfumato.core.find import OptionError, UnknownNameError, entries
from sfumato.data import Dataset, load
from sfumato.data.root import data_root


def test_every_entry_of_the_room_is_a_documented_dataset():
    """A helper module with a function of its own name would be listed as a dataset: keep them apart."""
    found = entries("data")
    assert {"digits", "fashion-mnist", "mnist", "cifar10", "celeba", "folder", "zip", "toy"} <= set(found)
    for name, entry in found.items():
        assert typing.get_type_hints(entry)["return"] is Dataset, name
        parameters = inspect.signature(entry).parameters
        assert parameters["split"].default == "train", name
        assert "Returns:" in entry.__doc__, name


def test_unknown_names_offer_the_nearest():
    with pytest.raises(UnknownNameError, match="Unknown dataset 'digts'. Did you mean 'digits'?"):
        load("digts")
    with pytest.raises(OptionError, match="takes no options"):
        load("digits", options={"skip_bad": True})
    with pytest.raises(ValueError, match=r"first must lie in \[1, 1437\]"):
        load("digits", first=5000)
    with pytest.raises(ValueError, match="Valid sizes for 8: 1, 2, 4, 8"):
        load("digits", size=3)


def test_steps_come_in_their_fixed_order():
    d = load("digits", split="all", classes=(7, "1"), first=20, size=4, channels=3, pad=6)
    assert d.shape == (3, 6, 6)
    assert d.classes == ("7", "1")
    whole = load("digits", split="all")
    expected = whole.indices[(whole.labels == 7) | (whole.labels == 1)][:20]
    assert d.indices.equal(expected)
    assert d.rule == "classes 7, 1; first 20; 3 channels; box mean to 4; padded to 6"


def test_root_is_argument_then_variable_then_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SFUMATO_DATA", str(tmp_path / "variable"))
    assert data_root(tmp_path / "argument") == tmp_path / "argument"
    assert data_root() == tmp_path / "variable"
    monkeypatch.delenv("SFUMATO_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_root() == tmp_path / "cache" / "sfumato" / "data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_root() == tmp_path / ".cache" / "sfumato" / "data"


def test_dashes_and_underscores_are_one():
    assert torch.equal(load("digits").images, load("DIGITS".lower()).images)
    with pytest.raises(UnknownNameError, match="Did you mean 'fashion-mnist'"):
        load("fashion_minst")
