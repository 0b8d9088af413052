from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from PIL import Image
from typer.testing import CliRunner

from dataengine.errors import UserError
from dataengine.view import commands
from dataengine.view.serve import HOST, server_of


@pytest.fixture
def call(monkeypatch):
    """Run a command without serving; gives back its site."""
    from dataengine.cli import app

    sites = []
    monkeypatch.setattr(commands, "_serve", lambda site, *_: sites.append(site))

    def run(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return sites[-1]

    return run


def test_view_opens_a_run_with_a_data_set_to_compare_with(call, make_run, toy_dataset):
    site = call("view", make_run(12), "--real", toy_dataset)
    assert len(site.made.index) == 12
    assert len(site.real.index) == 24
    assert site.neighbours.size == (96, 96)
    assert site.studio is None


def test_view_opens_a_data_set_and_a_plain_folder_of_images(call, toy_dataset, tmp_path):
    assert len(call("view", toy_dataset).made.index) == 24
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    assert len(call("view", tmp_path).made.index) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["view", "nowhere"], "nowhere does not exist"),
        (["layout", "draw", "--out", "x"], "give --dataset"),
        (["layout", "draw", "--out", "x", "--run", "nowhere"], "nowhere does not exist"),
        (["layout", "draw", "--out", "x", "--dataset", "hit-uav", "--image", "no.png"], "no.png: image is missing"),
        (["layout", "draw", "--out", "x", "--dataset", "hit-uav", "--size", "3"], "size"),
    ],
)
def test_a_mistake_is_reported_before_anything_is_served_or_written(call, arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=says):
        call(*arguments)
    assert not list(tmp_path.iterdir())


def test_without_the_extra_the_command_says_what_to_install(call, make_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "starlette", None)
    with pytest.raises(UserError, match=r"pip install 'aerial-dataengine\[view\]'"):
        call("view", make_run(1))


def test_a_port_in_use_is_named():
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}: .*in use"):
            server_of(None, port)


def test_the_page_is_served_on_the_loopback_interface_only():
    _, listener, address = server_of(None, 0)
    with listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        assert address.startswith("http://127.0.0.1:")


def test_ctrl_c_ends_the_page_without_complaint(make_run):
    program = [sys.executable, "-m", "dataengine", "view", str(make_run(3)), "--port", "0"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        address = next(line for line in process.stdout if line.startswith("http")).split()[0]
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{address}api/site") as answer:
                    assert answer.status == 200
                break
            except urllib.error.URLError:
                time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert said.strip() == ""
