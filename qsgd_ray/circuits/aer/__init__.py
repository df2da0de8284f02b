"""Qiskit Aer behind the backend protocol, with its noise models."""
