"""`python launch.py` as a process: how fast it is up, who gets in, how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection
from urllib.parse import urlencode

import pytest

from tests.program import ROOT, clean_environment, free_port, running
from tests.share_server import PUBLIC, install_client, run_server

HTML = {"accept": "text/html"}


def refused(*arguments: str, **environ: str) -> tuple[int, str]:
    """Exit code and stderr of a start that must fail."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**clean_environment(), **environ},
    )
    return done.returncode, done.stderr


def test_the_page_is_up_quickly_and_ends_at_once(tmp_path):
    with running(tmp_path) as program:
        assert program.get("/", HTML)[0] == 200
        assert program.cpu_seconds() < 5  # the promise; computing is all it does until then
        program.wait_for_output(f"GLM Workbench is at {program.url}")
        began = time.monotonic()
        assert program.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < 10
        assert "Traceback" not in program.output


def test_a_port_in_use_is_one_sentence(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, said = refused("--port", str(port), "--data-dir", str(tmp_path))
    assert code == 8
    assert f"port {port} on 127.0.0.1 is in use" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--data-dir", "/dev/null/x"], 9, "cannot write the data folder"),
        (["--host", "no.such.host.invalid"], 2, "is no address of this machine"),
        (["--auth", "no-colon"], 2, "--auth must be USER:PASSWORD"),
        (["--port", "0"], 2, "--port is '0'"),
    ],
)
def test_a_start_that_cannot_be_is_one_sentence(tmp_path, arguments, code, words):
    given = ["--port", str(free_port()), "--data-dir", str(tmp_path), *arguments]
    found, said = refused(*given)
    assert (found, said.count("\n")) == (code, 1)
    assert words in said


def test_whoever_listens_gets_a_password_once_and_strangers_get_nothing(tmp_path):
    with running(tmp_path, "--listen") as program:
        program.wait_for_output("shown only now")
        password = re.search(r"with the password (\S+) ", program.output)[1]
        assert program.get("/")[0] == 401
        assert program.get("/", HTML)[0] == 303
        assert program.get("/config", {"cookie": "glm=1"})[0] == 401
        cookie = log_in(program.port, "operator", password)
        assert program.get("/", {**HTML, "cookie": cookie})[0] == 200
        program.stop()
        kept = [path.read_bytes() for path in program.data.rglob("*") if path.is_file()]
        assert program.output.count(password) == 1
        assert not any(password.encode() in content for content in kept)


def log_in(port: int, user: str, password: str) -> str:
    """The session cookie."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    form = urlencode({"user": user, "password": password})
    headers = {"content-type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/login", form, headers)
    answer = connection.getresponse()
    assert answer.status == 303, answer.read()
    connection.close()
    return answer.headers["set-cookie"].partition(";")[0]


def test_a_stop_under_load_cuts_open_answers_and_leaves_no_process(tmp_path):
    with running(tmp_path) as program:
        streams = [open_stream(program.port, f"s{index}") for index in range(20)]
        program.wait_for_output("GLM Workbench is at")
        group = children(program.process.pid)
        began = time.monotonic()
        assert program.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < 10
        for stream in streams:
            stream.close()
        assert not [pid for pid in group if os.path.exists(f"/proc/{pid}")]


def open_stream(port: int, session: str) -> socket.socket:
    """A tab that listens for events, which Gradio keeps open."""
    stream = socket.create_connection(("127.0.0.1", port), timeout=10)
    stream.sendall(
        f"GET /gradio_api/heartbeat/{session} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    )
    assert b"200" in stream.recv(100)
    return stream


def children(pid: int) -> list[int]:
    done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in done.stdout.split()]


def test_ctrl_c_while_it_starts_ends_it_quietly(tmp_path):
    with running(tmp_path, up=False) as program:
        program.wait_for(lambda: program.cpu_seconds() > 0.5, 60)  # somewhere in the imports
        assert program.stop(signal.SIGINT) in (0, 130)
        assert "Traceback" not in program.output


def test_a_header_of_a_megabyte_is_refused(tmp_path):
    with running(tmp_path) as program:
        with socket.create_connection(("127.0.0.1", program.port), timeout=10) as stream:
            head = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: {'a' * 1_000_000}\r\n\r\n"
            try:
                stream.sendall(head.encode())
                first = stream.recv(100)
            except ConnectionError:
                first = b""
        assert not first.startswith(b"HTTP/1.1 2")
        assert program.get("/health")[0] == 200


# ---- the public link ----


def public_get(port: int, path: str, headers: dict[str, str]) -> tuple[int, str]:
    """As a visitor of the link: through the share server, with the link's name."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path, headers={"host": PUBLIC, "connection": "close", **headers})
    answer = connection.getresponse()
    body = answer.read().decode("utf-8", "replace")
    connection.close()
    return answer.status, body


def test_a_public_link_leads_to_the_login_for_page_files_and_interface_alike(tmp_path):
    home = tmp_path / "home"
    with run_server() as (clients, visitors):
        install_client(home)
        environ = {"GRADIO_SHARE_SERVER_ADDRESS": f"127.0.0.1:{clients}", "HF_HOME": str(home)}
        words = ["--share", "--auth", "ann:correct horse", "--api-key", "k1"]
        with running(tmp_path, *words, **environ) as program:
            program.wait_for_output(f"http://{PUBLIC}")
            codes = {
                path: public_get(visitors, path, {})[0]
                for path in ("/", "/config", "/v1/models", "/gradio_api/file=/etc/passwd")
            }
            assert set(codes.values()) == {401}
            assert public_get(visitors, "/", HTML)[0] == 303
            assert public_get(visitors, "/health", {})[0] == 200
            cookie = log_in(program.port, "ann", "correct horse")
            assert public_get(visitors, "/", {**HTML, "cookie": cookie})[0] == 200
            tunnel = children(program.process.pid)
            assert tunnel
            assert program.stop() == 0
            assert not [pid for pid in tunnel if os.path.exists(f"/proc/{pid}")]


def test_without_a_share_server_the_local_page_is_there_with_one_warning(tmp_path):
    environ = {
        "GRADIO_SHARE_SERVER_ADDRESS": "127.0.0.1:9",
        "HF_HOME": str(tmp_path / "home"),
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }
    with running(tmp_path, "--share", **environ) as program:
        program.wait_for_output("Warning: no public link")
        assert program.get("/health")[0] == 200
        program.stop()
        assert program.output.count("Warning") == 1 and "Traceback" not in program.output
