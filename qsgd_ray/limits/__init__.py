"""How far the method reaches: a study of limits in, a row for every size out; one file a kind of curve."""
