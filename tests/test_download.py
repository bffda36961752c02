"""Downloads against a server of our own: whole, resumed, refused."""

import hashlib
import http.server
import threading
from contextlib import contextmanager

import pytest

from sfumato import download
from sfumato.data.dataset import DataError
from sfumato.data.root import fetch as fetch_data
from sfumato.download import DownloadError, Remote, verify
from sfumato.metrics.extractors import inception
from sfumato.metrics.extractors.inception import WeightsError

BODY = bytes(range(256)) * 4000
MD5 = hashlib.md5(BODY).hexdigest()
SHA256 = hashlib.sha256(BODY).hexdigest()
REMEDY = "Put the file there yourself."


class Handler(http.server.BaseHTTPRequestHandler):
    """Serve BODY; the server's `ranges` and `limit` say whether it resumes and after how many bytes it hangs up."""

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if server.status != 200:
            self.send_error(server.status)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        self.send_header("Content-Length", str(len(server.body) - start))
        self.end_headers()
        self.wfile.write(server.body[start : start + server.limit])

    def log_message(self, *args):
        pass


@contextmanager
def serving(*, body=BODY, ranges=True, limit=1 << 30, status=200):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.body, server.ranges, server.limit, server.status, server.asked = body, ranges, limit, status, []
        server.url = f"http://127.0.0.1:{server.server_port}/files/set.bin"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def remote(server, **changes):
    return Remote(**({"url": server.url, "size": len(BODY), "md5": MD5, "sha256": SHA256} | changes))


def fetch(known, folder):
    return download.fetch(known, folder, remedy=REMEDY)


def test_a_whole_file_arrives_once(tmp_path):
    with serving() as server:
        path = fetch(remote(server), tmp_path / "new" / "folder")
        assert path.read_bytes() == BODY
        assert fetch(remote(server), tmp_path / "new" / "folder") == path
        assert server.asked == [None]
    assert [p.name for p in path.parent.iterdir()] == ["set.bin"]


def test_an_interrupted_download_resumes_where_it_stopped(tmp_path):
    with serving(limit=300_000) as server:  # three attempts, each cut short
        with pytest.raises(DownloadError, match="900,000 of 1,024,000 bytes are kept; run again"):
            fetch(remote(server), tmp_path)
        assert server.asked == [None, "bytes=300000-", "bytes=600000-"]
        assert not (tmp_path / "set.bin").exists()
        assert (tmp_path / "set.bin.part").read_bytes() == BODY[:900_000]
        assert fetch(remote(server), tmp_path).read_bytes() == BODY
        assert server.asked[3:] == ["bytes=900000-"]
    assert [p.name for p in tmp_path.iterdir()] == ["set.bin"]


def test_a_server_without_ranges_starts_over(tmp_path):
    (tmp_path / "set.bin.part").write_bytes(b"stale" * 100)
    with serving(ranges=False) as server:
        assert fetch(remote(server), tmp_path).read_bytes() == BODY
        assert server.asked == ["bytes=500-"]


@pytest.mark.parametrize("part", [BODY, BODY + b"more"])
def test_a_finished_or_overlong_part_is_handled(tmp_path, part):
    (tmp_path / "set.bin.part").write_bytes(part)
    with serving() as server:
        assert fetch(remote(server), tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("changes", [{"md5": "0" * 32}, {"sha256": "0" * 64}])
def test_a_wrong_hash_is_refused_and_removed(tmp_path, changes):
    message = "sent another file than expected.*expected (md5|sha256) 0+"
    with serving() as server, pytest.raises(DownloadError, match=message):
        fetch(remote(server, **changes), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_more_bytes_than_announced_are_refused(tmp_path):
    with serving(body=BODY * 2) as server, pytest.raises(DownloadError, match="more than the expected 1,024,000 bytes"):
        fetch(remote(server), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_server_error_names_file_address_and_remedy(tmp_path):
    with serving(status=404) as server:
        with pytest.raises(DownloadError, match=r"set\.bin is not in .*404.*Put the file there yourself"):
            fetch(remote(server), tmp_path)
        gone = remote(server)
    with pytest.raises(DownloadError, match="could not be fetched"):
        fetch(gone, tmp_path)  # nobody listens any more
    assert list(tmp_path.iterdir()) == []


def test_processes_that_ask_together_get_one_download(tmp_path):
    with serving() as server:
        paths = []
        threads = [threading.Thread(target=lambda: paths.append(fetch(remote(server), tmp_path))) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(paths) == 6
        assert server.asked == [None]
    assert [p.name for p in tmp_path.iterdir()] == ["set.bin"]


def test_a_corrupt_local_file_is_named_and_left_alone(tmp_path):
    path = tmp_path / "set.bin"
    known = Remote("https://example.org/files/set.bin", len(BODY), md5=MD5)
    path.write_bytes(BODY)
    verify(path, known)
    flipped = bytearray(BODY)
    flipped[777] ^= 1
    path.write_bytes(flipped)
    found = hashlib.md5(flipped).hexdigest()
    with pytest.raises(DownloadError, match=rf"set\.bin is corrupt.*expected md5 {MD5}, found {found}.*Delete it"):
        fetch(known, tmp_path)
    path.write_bytes(BODY[:-1])
    with pytest.raises(DownloadError, match="expected size 1024000, found 1023999"):
        fetch(known, tmp_path)
    assert path.exists()


def test_only_http_with_a_checksum():
    with pytest.raises(ValueError, match="http or https"):
        Remote("file:///etc/passwd", 1, md5=MD5)
    with pytest.raises(ValueError, match="checksum"):
        Remote("https://example.org/x", 1)


@pytest.mark.parametrize(
    ("get", "error", "remedy"),
    [
        (fetch_data, DataError, "set SFUMATO_DATA"),
        (lambda known, folder: inception.download(folder, known), WeightsError, "--weights FILE .*weights='FILE'"),
    ],
    ids=["data", "inception"],
)
def test_data_and_weights_resume_refuse_another_file_and_name_their_own_remedy(tmp_path, get, error, remedy):
    with serving(limit=300_000) as server:
        with pytest.raises(error, match=f"900,000 of 1,024,000 bytes are kept; run again.*{remedy}"):
            get(remote(server), tmp_path)
        assert get(remote(server), tmp_path).read_bytes() == BODY
        assert server.asked[3:] == ["bytes=900000-"]
    (tmp_path / "set.bin").write_bytes(BODY[:-1])
    with pytest.raises(error, match="set.bin is corrupt"):
        get(remote(server), tmp_path)
    (tmp_path / "set.bin").unlink()
    with serving(body=BODY[:-1] + b"x") as server, pytest.raises(error, match="another file than expected.*sha256"):
        get(remote(server, md5=""), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_download_says_what_comes_from_where_and_goes_whereto(tmp_path, capsys):
    with serving() as server:
        inception.download(tmp_path, remote(server))
    assert f"Downloading {server.url} (1.0 MB) to {tmp_path}" in capsys.readouterr().err


def test_the_weights_are_asked_for_by_the_hash_in_their_name():
    assert inception.WEIGHTS.name == inception.NAME
    assert inception.WEIGHTS.sha256.startswith(inception.HASH)
    assert len(inception.WEIGHTS.sha256) == 64
