"""The peers that circuits are measured against, a file each; docs/benchmarks.md says which and why not others."""

from qsgd_ray.bench.circuits.engine import Engine
from qsgd_ray.bench.circuits.peers.aer import Aer, AerMatrixProductState, QiskitStatevector
from qsgd_ray.bench.circuits.peers.deepquantum import DeepQuantum
from qsgd_ray.bench.circuits.peers.jax_chain import JaxChain
from qsgd_ray.bench.circuits.peers.jax_dense import JaxFused, JaxHalves, JaxKron, JaxPlain
from qsgd_ray.bench.circuits.peers.lightning import Lightning
from qsgd_ray.bench.circuits.peers.pennylane_qubit import PennyLaneJax, PennyLaneTorch
from qsgd_ray.bench.circuits.peers.pyqtorch import PyQTorch
from qsgd_ray.bench.circuits.peers.qibo import Qibo
from qsgd_ray.bench.circuits.peers.quimb import Quimb
from qsgd_ray.bench.circuits.peers.qujax import Qujax
from qsgd_ray.bench.circuits.peers.qulacs import Qulacs
from qsgd_ray.bench.circuits.peers.tensorcircuit import TensorCircuit

PEERS: tuple[Engine, ...] = (
    JaxPlain(),
    JaxFused(),
    JaxKron(),
    JaxHalves(),
    JaxChain(),
    TensorCircuit(),
    Qujax(),
    PennyLaneJax(),
    PennyLaneTorch(),
    Lightning(),
    PyQTorch(),
    DeepQuantum(),
    Qulacs(),
    Qibo(),
    QiskitStatevector(),
    Aer(),
    AerMatrixProductState(),
    Quimb(),
)
