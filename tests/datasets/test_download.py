"""Downloads from a local server that behaves well or badly."""

import hashlib
import http.server
import shutil
import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager
from urllib.error import URLError
from urllib.request import OpenerDirector

import pytest

from mgwa_pyg.datasets import DownloadError, download
from mgwa_pyg.datasets.download import RawFile, download_files
from mgwa_pyg.utils.files import whole_file

CONTENT = b"some raw bytes\n" * 10_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/missing":
            self.send_error(404)
            return
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to?"))
            self.end_headers()
            return
        if self.path == "/hanging":
            self.server.closing.wait()
            return
        self.send_response(200)
        if self.path != "/without_length":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:1000] if self.path == "/truncated" else CONTENT)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Clients that hang up are not worth a traceback."""


@contextmanager
def serve(tls=None):
    server = Server(("127.0.0.1", 0), Handler)
    server.closing = threading.Event()
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server.server_port
    server.closing.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """No proxy stands between, and a busy machine may take its time."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "ANSWER_SECONDS", 300.0)


@pytest.fixture
def url(monkeypatch):
    """The address of a server without TLS, which is allowed here."""
    monkeypatch.setattr(download, "SCHEMES", ("http",))
    with serve() as port:
        yield f"http://127.0.0.1:{port}"


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
        ("/hanging", {}, "no answer within 0.3 seconds"),  # The server would wait for ever.
    ],
)
def test_failure(url, tmp_path, monkeypatch, path, known, reason):
    if path == "/hanging":
        monkeypatch.setattr(download, "ANSWER_SECONDS", 0.3)
    files = {"a.txt": RawFile(url + path, **known), "b.txt": RawFile(url + "/good")}
    with pytest.raises(DownloadError) as error:
        download_files(files, tmp_path / "root" / "raw")
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
    asked_too_long = threading.Event()
    monkeypatch.setattr(download, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: asked_too_long.wait())
    with pytest.raises(DownloadError, match=r"no answer within 0\.2 seconds"):
        download_files({"a.txt": RawFile("https://files.invalid/a.txt")}, tmp_path)
    asked_too_long.set()


@pytest.mark.parametrize("error", [TimeoutError("timed out"), URLError(TimeoutError("timed out"))])
def test_a_timeout_of_the_socket_says_the_same(tmp_path, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(OpenerDirector, "open", fail)
    with pytest.raises(DownloadError, match=r"no answer within 300 seconds\. Place a\.txt"):
        download_files({"a.txt": RawFile("https://files.invalid/a.txt")}, tmp_path)


def test_no_server(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DownloadError, match="refused"):
        download_files({"a.txt": RawFile(f"https://127.0.0.1:{port}/a.txt")}, tmp_path)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for the address 127.0.0.1 that its own key has signed."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificate")
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=test "
        "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out certificate.pem"
    )
    subprocess.run(command.split(), cwd=folder, capture_output=True, check=True)
    return folder / "certificate.pem", folder / "key.pem"


@pytest.fixture
def https(certificate):
    """The address of a server whose certificate nobody knows; `/to?ADDRESS` leads elsewhere."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with serve(context) as port:
        yield f"https://127.0.0.1:{port}"


def test_an_unknown_certificate_is_refused(https, tmp_path):
    with pytest.raises(DownloadError, match="CERTIFICATE_VERIFY_FAILED"):
        download_files({"a.txt": RawFile(https + "/good")}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_known_certificate_is_accepted_for_its_own_address_only(https, certificate, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    download_files({"a.txt": RawFile(f"{https}/to?{https}/good", sha256=SHA256)}, tmp_path)
    assert (tmp_path / "a.txt").read_bytes() == CONTENT
    with pytest.raises(DownloadError, match="Hostname mismatch"):
        download_files({"b.txt": RawFile(https.replace("127.0.0.1", "localhost") + "/good")}, tmp_path)


@pytest.mark.parametrize("target", ["http", "file", "ftp", "data"])
def test_nothing_but_https_is_followed(https, certificate, tmp_path, monkeypatch, target):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    (tmp_path / "secret").write_bytes(CONTENT)
    with serve() as port:
        address = {
            "http": f"http://127.0.0.1:{port}/good",
            "file": (tmp_path / "secret").as_uri(),
            "ftp": f"ftp://127.0.0.1:{port}/good",
            "data": "data:text/plain,some",
        }[target]
        for url in (address, f"{https}/to?{address}"):
            with pytest.raises(DownloadError, match=f"'{address}' is not (opened|allowed)"):
                download_files({"a.txt": RawFile(url)}, tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_whole_file_keeps_the_old_one_on_failure(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with whole_file(path) as temporary:
        temporary.write_text("old")
        assert not path.exists()
    with pytest.raises(IsADirectoryError), whole_file(path) as temporary:
        temporary.write_text("half") and path.parent.read_text()
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]
