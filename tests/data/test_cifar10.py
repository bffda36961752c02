"""CIFAR-10's official layouts, made here with random pixels; the pickles' code is never executed."""

import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from sfumato.data import DataError, cifar10, load
from sfumato.data.unpickle import read_plain
from sfumato.download import Remote

ROOT = Path(os.environ.get("SFUMATO_DATA", "/nonexistent"))
NAMES = [*cifar10.BATCHES["train"], *cifar10.BATCHES["test"]]


def python2_batch(images, labels, name):
    """Write a batch by hand with the opcodes of the official files: protocol 2, byte strings of Python 2."""

    def text(s):
        return b"U" + bytes([len(s)]) + s  # SHORT_BINSTRING

    def integer(i):
        return b"K" + bytes([i])

    data = images.reshape(len(images), -1)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + integer(0) + b"\x85" + text(b"b") + b"\x87R"
        + b"(" + integer(1) + integer(len(data)) + b"M\x00\x0c\x86"  # BININT2 3072
        + b"cnumpy\ndtype\n" + text(b"u1") + integer(0) + integer(1) + b"\x87R"
        + b"(" + integer(3) + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff" + integer(0) + b"tb"
        + b"\x89" + b"T" + len(data.tobytes()).to_bytes(4, "little") + data.tobytes() + b"tb"
    )  # fmt: skip
    items = b"]" + b"(" + b"".join(integer(k) for k in labels) + b"e"
    return (
        b"\x80\x02}("
        + text(b"data")
        + array
        + text(b"labels")
        + items
        + text(b"batch_label")
        + text(name.encode())
        + text(b"filenames")
        + b"]("
        + text(b"a.png")
        + b"eu."
    )


@pytest.fixture
def made(tmp_path, monkeypatch):
    """An official-looking set of 6 batches of 20 images, with its checksums put in the module's place."""
    g = np.random.Generator(np.random.Philox(0))
    images = g.integers(0, 256, (6, 20, 3, 32, 32), dtype=np.uint8)
    labels = g.integers(0, 10, (6, 20))
    files = {n: python2_batch(images[i], labels[i], n) for i, n in enumerate(NAMES)}
    folder = tmp_path / "cifar10"
    (folder / cifar10.UNPACKED).mkdir(parents=True)
    for name, content in files.items():
        (folder / cifar10.UNPACKED / name).write_bytes(content)
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    parts = {part: {n: md5[n] for n in batches} for part, batches in cifar10.BATCHES.items()}
    monkeypatch.setattr(cifar10, "BATCHES", parts)
    return tmp_path, images, labels, files


def test_the_handmade_batch_is_a_real_pickle(made):
    _, images, labels, files = made
    stored = pickle.loads(files["data_batch_1"], encoding="bytes")
    assert np.array_equal(stored[b"data"].reshape(-1, 3, 32, 32), images[0])
    assert stored[b"labels"] == labels[0].tolist()


def test_unpacked_batches_in_official_order(made):
    root, images, labels, _ = made
    train, test = load("cifar10", root=root), load("cifar10", root=root, split="test")
    assert np.array_equal(train.images.numpy(), images[:5].reshape(-1, 3, 32, 32))
    assert np.array_equal(train.labels.numpy(), labels[:5].ravel())
    assert np.array_equal(test.images.numpy(), images[5])
    assert test.classes[3] == "cat"


def test_the_archive_is_read_without_unpacking(made, monkeypatch):
    root, images, labels, files = made
    unpacked = load("cifar10", root=root, split="all")
    folder = root / "cifar10"
    for name in files:
        (folder / cifar10.UNPACKED / name).unlink()
    (folder / cifar10.UNPACKED).rmdir()
    archive = folder / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in reversed(list(files)):
            info = tarfile.TarInfo(f"{cifar10.UNPACKED}/{name}")
            info.size = len(files[name])
            tar.addfile(info, io.BytesIO(files[name]))
    content = archive.read_bytes()
    known = Remote(cifar10.ARCHIVE.url, len(content), md5=hashlib.md5(content).hexdigest())
    monkeypatch.setattr(cifar10, "ARCHIVE", known)
    packed = load("cifar10", root=root, split="all")
    assert packed.images.equal(unpacked.images)
    assert packed.labels.equal(unpacked.labels)
    assert [p.name for p in folder.iterdir()] == [archive.name]
    archive.write_bytes(content[:-100])
    with pytest.raises(DataError, match="expected size"):
        load("cifar10", root=root)
    monkeypatch.setattr(cifar10, "ARCHIVE", Remote(known.url, len(content) - 100, md5=_md5(content[:-100])))
    with pytest.raises(DataError, match="not a whole .tar.gz"):
        load("cifar10", root=root, split="all")


def _md5(content):
    return hashlib.md5(content).hexdigest()


def test_a_flipped_bit_is_found(made):
    root, _, _, files = made
    broken = bytearray(files["test_batch"])
    broken[5000] ^= 4
    (root / "cifar10" / cifar10.UNPACKED / "test_batch").write_bytes(broken)
    with pytest.raises(DataError, match="test_batch is corrupt.*expected md5"):
        load("cifar10", root=root, split="test")


class Evil:
    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


@pytest.mark.parametrize("protocol", range(5))
def test_arrays_are_read_without_numpys_code(protocol):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    for given in (array, np.asfortranarray(array)):
        stored = read_plain(pickle.dumps({"data": given, "labels": [1, (2.5, None, True)]}, protocol), "x")
        assert np.array_equal(stored["data"], array)
        assert stored["labels"] == [1, (2.5, None, True)]


@pytest.mark.parametrize(
    "value",
    [
        Evil(os.mkdir, "MARK"),
        Evil(eval, "__import__('os').mkdir('MARK')"),
        Evil(getattr, "", "join"),
        {"data": [Evil(os.system, "mkdir MARK")]},
        np.array([Evil(os.mkdir, "MARK")], dtype=object),
        np.arange(3.0),
        np.ma.masked_array([1]),
        {1, 2},
        Path("x"),
    ],
    ids=["mkdir", "eval", "getattr", "nested", "objects", "floats", "masked", "set", "path"],
)
def test_anything_but_plain_data_is_refused_without_side_effects(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for protocol in range(6):
        with pytest.raises(DataError, match="x is refused|x is not a readable pickle"):
            read_plain(pickle.dumps(value, protocol), "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02",
        b"cnumpy\ndtype\n(U\x02O8tR.",
        b"cnumpy\nndarray\n.",
        b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"cposix\nsystem\n(S'true'\ntR.",
        b"Pid\n.",
        b"\x82\x01.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01(K\x05tcnumpy\ndtype\n(U\x02u1tR\x89U\x03abctb.",
    ],
)
def test_malformed_pickles_are_refused(content):
    with pytest.raises(DataError, match="x is refused|x is not a readable pickle"):
        read_plain(content, "x")


def test_a_pickle_that_is_no_batch_is_refused():
    for value in ({b"data": [1]}, [], {b"data": np.zeros((2, 5), np.uint8), b"labels": [1, 2]}):
        with pytest.raises(DataError, match="not a CIFAR-10 batch"):
            cifar10.read_batch(pickle.dumps(value), "b")
    data = np.zeros((1, 3072), np.uint8)
    with pytest.raises(DataError, match="not a CIFAR-10 batch"):
        cifar10.read_batch(pickle.dumps({b"data": data, b"labels": [10]}), "b")


HERE = (ROOT / "cifar10/cifar10-jpeg75.npz").exists()


@pytest.mark.skipif(not HERE, reason="SFUMATO_DATA has no cifar10/cifar10-train-first4000.npz")
def test_the_partial_set_is_labelled_as_such():
    first = load("cifar10-first4000", split="all")
    assert first.name == "cifar10-first4000-PARTIAL"
    assert first.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]  # the well-known start of data_batch_1
    assert len(first) == 4000


@pytest.mark.slow
@pytest.mark.skipif(not HERE, reason="SFUMATO_DATA has no cifar10/cifar10-jpeg75.npz")
def test_the_lossy_set_is_labelled_as_such_and_near_its_lossless_twin():
    first = load("cifar10-first4000", split="all")
    lossy, test = load("cifar10-jpeg75", first=4000), load("cifar10-jpeg75", split="test")
    assert lossy.name == test.name == "cifar10-jpeg75-LOSSY"
    assert test.labels.bincount().tolist() == [1000] * 10
    assert lossy.labels.equal(first.labels)
    error = (first.images.float() - lossy.images.float()).square().mean()
    assert error.item() == pytest.approx(65.4, abs=0.1)
    assert (first.images.float() - lossy.images.roll(1, 0).float()).square().mean() > 7000
