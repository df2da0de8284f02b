"""Slurm for real on this machine: munged, slurmctld and slurmd of one node, in namespaces of their own."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import namespaces
from support.namespaces import Inside
from support.processes import wait_until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")

CONFIGURATION = """
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""

SERVERS = """
mkdir state spool
munged --foreground --force --socket="$FOLDER/munge.socket" --key-file="$FOLDER/munge.key" \
    --pid-file="$FOLDER/munge.pid" --seed-file="$FOLDER/munge.seed" --log-file="$FOLDER/munge.log" &
while [ ! -S "$FOLDER/munge.socket" ]; do sleep 0.1; done
slurmctld -D -c -f "$SLURM_CONF" > slurmctld.log 2>&1 &
slurmd -D -f "$SLURM_CONF" > slurmd.log 2>&1 &
"""


def missing() -> str | None:
    """Return why there can be no Slurm here; None: there can."""
    return namespaces.missing(PROGRAMS, "slurmctld slurmd slurm-client munge")


@contextmanager
def local_slurm(folder: Path, cpus: int) -> Iterator[Inside]:
    """Start Slurm; afterwards end it and all that it has started.

    Args:
        folder: for its files, owned by root; it is removed at the end.
        cpus: of the one node, on paper.
    """
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    conf = folder / "slurm.conf"
    conf.write_text(CONFIGURATION.format(folder=folder, host=os.uname().nodename, cpus=cpus))
    with namespaces.namespaces(folder, SERVERS, {"SLURM_CONF": str(conf)}) as slurm:
        wait_until(lambda: "idle" in slurm.run("sinfo", "--noheader").stdout, 60, "no node of Slurm is idle")
        yield slurm
