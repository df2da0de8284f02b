"""`ray up` for real: Ray's launcher reaches this machine by ssh and starts the head that the clouds' files describe."""

import re
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from support import namespaces
from support.cluster_files import CLUSTER, ROOT
from support.processes import STARTS_RAY_S, name_of, wait_until

PROGRAMS = ("sshd", "ssh", "ssh-keygen", "rsync")
WHY_NOT = namespaces.missing(PROGRAMS, "openssh-server openssh-client rsync")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.xdist_group("local-ssh"),
    pytest.mark.timeout(2 * STARTS_RAY_S),
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]
FILES = ("aws.yaml", "gcp.yaml")
# What a home gets lies in the folder, not in the real one.
SERVERS = f"""
mkdir home work
mount -t overlay overlay -o lowerdir="$HOME",upperdir="$FOLDER/home",workdir="$FOLDER/work" "$HOME"
mkdir -p /run/sshd "$HOME/.ray"
cp auth_token "$HOME/.ray/auth_token"
ssh-keygen -q -t ed25519 -N "" -f host
ssh-keygen -q -t ed25519 -N "" -f user
# sshd wants to be started by its full path.
$(command -v sshd) -D -e -f /dev/null -h "$FOLDER/host" -o ListenAddress={namespaces.ADDRESS} -o PidFile=none \
    -o StrictModes=no -o UsePAM=no -o PermitRootLogin=prohibit-password -o AuthorizedKeysFile="$FOLDER/user.pub" \
    > sshd.log 2>&1 &
touch ready
"""
TOKEN = "0123456789abcdef" * 4


def described(file: str, folder: Path) -> dict:
    """A cloud's file with this machine in place of the cloud's, and without what needs the internet."""
    # The machine's user is root, with the home that is laid over the real one.
    config = yaml.safe_load((CLUSTER / file).read_text().replace("/home/ubuntu", str(Path.home())))
    for field in ("available_node_types", "head_node_type", "max_workers", "head_setup_commands"):
        config.pop(field)
    commands = config["setup_commands"]
    offline = [line for line in commands if not re.search(r"\buv\b|apt-get", line)]
    assert 2 <= len(offline) < len(commands)
    return config | {
        "provider": {"type": "local", "head_ip": namespaces.ADDRESS, "worker_ips": []},
        "auth": {"ssh_user": "root", "ssh_private_key": str(folder / "user")},
        "setup_commands": offline,
    }


@pytest.fixture
def machine():
    folder = Path(tempfile.mkdtemp(prefix="up-", dir="/tmp"))
    (folder / "auth_token").write_text(TOKEN)
    with namespaces.namespaces(folder, SERVERS, {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}) as inside:
        wait_until((folder / "ready").exists, 30, "no server of ssh")
        # In place of the installation, which needs the internet.
        program = f'#!/bin/bash\nexec "{sys.executable}" -m ray.scripts.scripts "$@"\n'
        install = 'mkdir -p ~/venv/bin && printf %s "$1" > ~/venv/bin/ray && chmod 755 ~/venv/bin/ray'
        assert inside.run("bash", "-c", install, "install", program).returncode == 0
        yield inside


@pytest.mark.parametrize("file", FILES)
def test_ray_up_starts_a_head_that_asks_for_the_token_and_ray_down_ends_it(file, machine):
    config = machine.folder / file
    config.write_text(yaml.safe_dump(described(file, machine.folder)))
    ray = (sys.executable, "-m", "ray.scripts.scripts")
    up = machine.run(*ray, "up", "--yes", "--no-config-cache", config, cwd=ROOT, timeout_s=STARTS_RAY_S)
    assert up.returncode == 0, f"{up.stdout[-4000:]}\n{up.stderr[-2000:]}\n{machine.logs()}"
    home = Path.home()
    installed = machine.run("find", home / "qsgd-ray", "-maxdepth", 2, "-name", "*.t*").stdout.split()
    for name in ("pyproject.toml", "constraints.txt", "cluster/uv.txt"):
        assert str(home / "qsgd-ray" / name) in installed
    assert machine.run("stat", "--format=%a", home / ".ray" / "auth_token").stdout == "600\n"
    status = ("status", "--address", f"{namespaces.ADDRESS}:6379")
    known = machine.run(*ray, *status, timeout_s=120, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN)
    assert known.returncode == 0, f"{known.stderr[-2000:]}\n{up.stdout[-4000:]}"
    assert "Resources" in known.stdout
    unknown = machine.run(*ray, *status, timeout_s=120, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="f" * 64)
    assert unknown.returncode != 0
    down = machine.run(*ray, "down", "--yes", config, cwd=ROOT, timeout_s=STARTS_RAY_S)
    assert down.returncode == 0, down.stdout[-4000:] + down.stderr[-2000:]
    assert "gcs_server" not in {name_of(process) for process in machine.processes()}
