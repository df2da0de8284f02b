"""Exact response of a circuit to one angle that all its layers share, as a Fourier series; `series` is the way in."""
