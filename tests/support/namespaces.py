"""A part of this machine for itself: namespaces with their own processes, network and /tmp/ray, which end as one.

`ray stop` ends all of a user's Ray on a machine; in here it sees no other. The network is loopback and one wire that
leads to itself, with the address `ADDRESS`.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from support.processes import lives, wait_until

ADDRESS = "192.0.2.1"
NAMESPACES = ("--net", "--pid", "--mount")
SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TOOLS = ("unshare", "nsenter", "ip")
# Without an address beyond 127.0.0.1 glibc resolves no name for Slurm (AI_ADDRCONFIG).
_PREPARE = f"""
set -eu
cd "$FOLDER"
ip link set lo up
ip link add node type veth peer name wire
ip addr add {ADDRESS}/24 dev node
ip link set node up
ip link set wire up
ip route add default dev node # by which Ray finds its address
mkdir -p /tmp/ray "$FOLDER/ray"
mount --bind "$FOLDER/ray" /tmp/ray
"""


def missing(programs: Sequence[str], packages: str) -> str | None:
    """Return why there can be none here, or not with these programs; None: there can.

    Args:
        programs: what is started inside.
        packages: of Debian, which have them.
    """
    if lacking := [name for name in (*programs, *_TOOLS) if shutil.which(name, path=SYSTEM) is None]:
        return f"needs {', '.join(lacking)}: apt-get install {packages} util-linux iproute2"
    if os.geteuid() != 0:
        return "needs root, for namespaces"
    wire = "ip link add node type veth peer name wire"
    attempt = subprocess.run(["unshare", *NAMESPACES, "--mount-proc", "--fork", "sh", "-c", wire], capture_output=True)
    return "needs namespaces and veth, which this machine does not give" if attempt.returncode else None


class Inside:
    """Namespaces in use.

    Attributes:
        folder: of the files of what runs there.
    """

    def __init__(self, folder: Path, first: psutil.Process, env: dict[str, str]) -> None:
        self.folder = folder
        self._first, self._env = first, env

    def run(
        self, *words: object, cwd: Path | None = None, timeout_s: float = 60, **env: str
    ) -> subprocess.CompletedProcess:
        """Run a command inside, and return it with its output.

        Args:
            words: the command.
            cwd: its folder.
            timeout_s: it may take so long.
            env: variables besides the common ones.
        """
        enter = ["nsenter", f"--target={self._first.pid}", *NAMESPACES, f"--wd={cwd or self.folder}"]
        return subprocess.run(
            [*enter, *map(str, words)], env=self._env | env, capture_output=True, text=True, timeout=timeout_s
        )

    def processes(self) -> list[psutil.Process]:
        """Return all that runs inside."""
        return self._first.children(recursive=True)

    def logs(self) -> str:
        """Return what its servers have said, for the message of a failed test."""
        return "\n".join(f"{file.name}:\n{file.read_text()[-3000:]}" for file in sorted(self.folder.glob("*.log")))


@contextmanager
def namespaces(folder: Path, servers: str, env: dict[str, str]) -> Iterator[Inside]:
    """Start servers inside; afterwards end them and all that has been started there.

    Args:
        folder: for their files, owned by root; it is removed at the end.
        servers: a script of bash that starts them in the background.
        env: variables of everything inside, besides PATH and FOLDER.
    """
    folder.chmod(0o755)
    env = {"PATH": SYSTEM, "FOLDER": str(folder), "HOME": os.environ.get("HOME", "/root")} | env
    launch = [
        "unshare",
        *NAMESPACES,
        "--mount-proc",
        "--fork",
        "--kill-child",
        "bash",
        "-c",
        _PREPARE + servers + "\nwait",
    ]
    with (folder / "start.log").open("wb") as log:
        launched = subprocess.Popen(launch, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    inside: list[psutil.Process] = []
    try:
        parent = psutil.Process(launched.pid)
        wait_until(lambda: parent.children() or launched.poll() is not None, 10, "the namespaces do not start")
        running = Inside(folder, parent.children()[0], env)
        yield running
        inside = running.processes()
    finally:
        launched.kill()  # --kill-child: the first process inside goes, and the rest with it
        launched.wait()
    wait_until(lambda: not any(map(lives, inside)), 10, "processes are left")
    shutil.rmtree(folder)
