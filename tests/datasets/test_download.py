"""Downloads from a local server that behaves well or badly."""

import hashlib
import http.server
import socket
import ssl
import threading
import time

import pytest

from mgwa_pyg.datasets import DownloadError, download
from mgwa_pyg.datasets.download import RawFile, download_files
from mgwa_pyg.files import whole_file

CONTENT = b"some raw bytes\n" * 10_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/missing":
            self.send_error(404)
            return
        if self.path == "/hanging":
            time.sleep(2)
            return
        self.send_response(200)
        if self.path != "/without_length":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:1000] if self.path == "/truncated" else CONTENT)

    def log_message(self, *args):
        pass


@pytest.fixture
def url(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("path", ["/good", "/without_length"])
@pytest.mark.parametrize("known", [{}, {"size": len(CONTENT)}, {"size": len(CONTENT), "sha256": SHA256}])
def test_success(url, tmp_path, path, known):
    download_files({"folder/a.txt": RawFile(url + path, **known)}, tmp_path / "raw")
    assert (tmp_path / "raw/folder/a.txt").read_bytes() == CONTENT
    assert [f.name for f in tmp_path.rglob("*") if f.is_file()] == ["a.txt"]


@pytest.mark.parametrize(
    ("path", "known", "reason"),
    [
        ("/missing", {}, "the server answered 404 Not Found"),
        ("/truncated", {}, f"1000 of {len(CONTENT)} bytes arrived"),
        ("/truncated", {"size": len(CONTENT), "sha256": SHA256}, "1000 of"),
        ("/good", {"size": 100, "sha256": SHA256}, "larger than the 100 bytes expected"),
        ("/without_length", {"size": 100}, "larger than the 100 bytes expected"),
        ("/good", {"sha256": "0" * 64}, f"its SHA-256 is {SHA256} instead of 000"),
        ("/hanging", {}, "no answer within 0.3 seconds"),
    ],
)
def test_failure(url, tmp_path, monkeypatch, path, known, reason):
    monkeypatch.setattr(download, "ANSWER_SECONDS", 0.3)
    files = {"a.txt": RawFile(url + path, **known), "b.txt": RawFile(url + "/good")}
    start = time.monotonic()
    with pytest.raises(DownloadError) as error:
        download_files(files, tmp_path / "root" / "raw")
    assert time.monotonic() - start < 2
    message = str(error.value)
    assert url + path in message
    assert reason in message
    assert f"Place a.txt, b.txt into '{tmp_path / 'root' / 'raw'}'" in message
    assert "MGWA_PYG_RAW" in message
    assert isinstance(error.value, OSError)
    assert list(tmp_path.iterdir()) == []


def test_the_size_is_limited_where_it_is_unknown(url, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 1000)
    with pytest.raises(DownloadError, match="larger than the 1000 bytes"):
        download_files({"a.txt": RawFile(url + "/good")}, tmp_path)


def test_earlier_files_stay_when_a_later_one_fails(url, tmp_path):
    files = {"a.txt": RawFile(url + "/good"), "b.txt": RawFile(url + "/missing")}
    with pytest.raises(DownloadError, match="/missing"):
        download_files(files, tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["a.txt"]


def test_a_silent_name_server_does_not_block(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: time.sleep(2))
    start = time.monotonic()
    with pytest.raises(DownloadError, match="no answer"):
        download_files({"a.txt": RawFile("http://files.invalid/a.txt")}, tmp_path)
    assert time.monotonic() - start < 1


def test_no_server(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DownloadError, match="refused"):
        download_files({"a.txt": RawFile(f"http://127.0.0.1:{port}/a.txt")}, tmp_path)


def test_tls_is_verified(monkeypatch):
    contexts = []
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout, context: contexts.append(context))
    download._open("https://files.invalid")
    assert contexts[0].verify_mode is ssl.CERT_REQUIRED
    assert contexts[0].check_hostname


def test_whole_file_keeps_the_old_one_on_failure(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with whole_file(path) as temporary:
        temporary.write_text("old")
        assert not path.exists()
    with pytest.raises(IsADirectoryError), whole_file(path) as temporary:
        temporary.write_text("half") and path.parent.read_text()
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]
