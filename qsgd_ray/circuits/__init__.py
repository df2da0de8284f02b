"""Circuits: as data, simulated exactly and in batches, answered behind one protocol."""
