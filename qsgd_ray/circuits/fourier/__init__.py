"""The exact response of a circuit to one shared angle as a Fourier series."""
