"""Does a quantum-circuit perturbation of Adam's update pay off? Studies that end in a verdict.

Importing the package loads nothing heavy: each module imports what it needs (docs in README.md).
"""

__version__ = "0.1.0"
