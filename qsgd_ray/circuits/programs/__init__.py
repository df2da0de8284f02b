"""Programs: circuits compiled to Pauli rotations, run by C++ or in torch; `program` and `run` are the way in."""
