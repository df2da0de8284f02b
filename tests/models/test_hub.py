import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from qsgd_ray.config import StudyError
from qsgd_ray.models.hub import load_from_hub

constants = pytest.importorskip("huggingface_hub.constants")


@pytest.fixture
def _no_network(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


@pytest.fixture
def _a_hub_that_answers(_no_network, monkeypatch):
    class Forbidding(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(403)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Forbidding) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield
        server.shutdown()


def only_online(local_files_only):
    if local_files_only:
        raise FileNotFoundError("not in the cache")
    return "from the network"


def nowhere(local_files_only):
    raise OSError("You are trying to\n access a gated repo." + " Ask." * 100)


@pytest.mark.usefixtures("_no_network")
def test_what_the_cache_has_needs_no_network():
    calls = []
    assert load_from_hub("model", "owner/name", lambda local: calls.append(local) or "here", "a folder") == "here"
    assert calls == [True]


@pytest.mark.usefixtures("_a_hub_that_answers")
def test_what_it_has_not_comes_from_a_hub_that_answers_whatever_it_says():
    assert load_from_hub("model", "owner/name", only_online, "a folder") == "from the network"


@pytest.mark.usefixtures("_no_network")
def test_without_a_network_one_line_comes_at_once():
    began = time.perf_counter()
    with pytest.raises(StudyError) as error:
        load_from_hub("model", "owner/name", only_online, "a folder")
    assert time.perf_counter() - began < 3
    words = str(error.value)
    assert "\n" not in words
    assert words.startswith("model: got 'owner/name', which is not in the Hugging Face cache")
    assert "refused" in words
    assert words.endswith("or a folder")


@pytest.mark.usefixtures("_a_hub_that_answers")
def test_what_the_hub_refuses_is_told_in_one_short_line():
    with pytest.raises(StudyError, match="You are trying to access a gated repo") as error:
        load_from_hub("model", "owner/name", nowhere, "a folder")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.usefixtures("_no_network")
def test_the_offline_switch_is_named(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(StudyError, match="HF_HUB_OFFLINE is set"):
        load_from_hub("model", "owner/name", only_online, "a folder")
