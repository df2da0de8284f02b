"""A private Ray answers those alone who know its token, and leaves the user's own settings as they are."""

import os
import subprocess
import sys

import pytest
from support.processes import STARTS_RAY_S

from qsgd_ray.execution._auth import private_token

NAMES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def settings() -> dict[str, str]:
    return {name: os.environ[name] for name in NAMES if name in os.environ}


@pytest.fixture
def home(monkeypatch, tmp_path):
    """A user without any of Ray's settings."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_without_a_setting_each_block_has_a_token_of_its_own_and_no_file(home):
    tokens = []
    for _ in range(2):
        with private_token():
            assert settings().keys() == {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}
            assert os.environ["RAY_AUTH_MODE"] == "token"
            tokens.append(os.environ["RAY_AUTH_TOKEN"])
        assert settings() == {}
    assert len({*tokens}) == 2
    assert all(len(token) == 64 for token in tokens)
    assert not [*home.iterdir()]


def test_a_token_that_is_meant_for_another_cluster_is_not_the_private_one_s(home, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/secret")
    with private_token():
        assert "RAY_AUTH_TOKEN_PATH" not in settings()
        assert os.environ["RAY_AUTH_MODE"] == "token"
    assert settings() == {"RAY_AUTH_TOKEN_PATH": "/secret"}


@pytest.mark.parametrize(
    "own",
    [
        {"RAY_AUTH_MODE": "disabled"},
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64},
        {"RAY_AUTH_MODE": "TOKEN", "RAY_AUTH_TOKEN_PATH": "/mine"},
    ],
)
def test_the_user_s_own_setting_is_honoured(home, monkeypatch, own):
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    with private_token():
        assert settings() == own
    assert settings() == own


def test_the_user_s_own_token_file_is_honoured(home, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("0" * 64)
    with private_token():
        assert settings() == {"RAY_AUTH_MODE": "token"}


def test_the_mode_without_a_token_is_given_one_and_no_file_is_made(home, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with private_token():
        assert settings().keys() == {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}
    assert settings() == {"RAY_AUTH_MODE": "token"}
    assert not [*home.iterdir()]


OTHER_USER = """
import sys
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError

try:
    print(len(GcsClient(address=sys.argv[1]).internal_kv_keys(b"", b"fun")) > 0)
except AuthenticationError:
    print("refused")
"""
PRIVATE_RAY = """
import os, stat, subprocess, sys
import ray
from qsgd_ray.execution.connection import private_ray

def ask(**settings):
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")} | settings
    words = [sys.executable, "-c", sys.argv[1], ray.get_runtime_context().gcs_address]
    print(subprocess.run(words, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout.strip(), flush=True)

with private_ray(1) as cluster:
    print(oct(stat.S_IMODE(os.stat(cluster.scratch).st_mode)))
    assert ray.get(ray.remote(lambda: 1 + 1).remote()) == 2
    ask()
    ask(RAY_AUTH_MODE="disabled")
    ask(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
    ask(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=os.environ["RAY_AUTH_TOKEN"])
print(sorted(name for name in os.environ if name.startswith("RAY_AUTH")))
"""


@pytest.mark.ray
@pytest.mark.timeout(STARTS_RAY_S)
def test_a_private_ray_refuses_whoever_does_not_know_its_token(home):
    """Its table of functions is what another user read and wrote before 2026-11-30."""
    words = [sys.executable, "-c", PRIVATE_RAY, OTHER_USER]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=STARTS_RAY_S, check=True)
    assert done.stdout.split("\n") == ["0o700", "refused", "refused", "refused", "True", "[]", ""]
    assert not (home / ".ray").exists()
