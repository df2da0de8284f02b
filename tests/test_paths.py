"""Leaves of a tree: each once, and the tree can be made of them again."""

from hypothesis import given
from hypothesis import strategies as st

from qsgd_ray.paths import leaves

names = st.text("abcxyz", min_size=1, max_size=3)
values = st.none() | st.booleans() | st.integers() | st.lists(st.integers(), max_size=3) | st.just({})
trees = st.dictionaries(
    names, st.recursive(values, lambda inner: st.dictionaries(names, inner, max_size=3)), min_size=1
)


@given(trees)
def test_a_tree_of_dicts_is_made_of_its_leaves_again(tree):
    again = {}
    for path, value in leaves(tree):
        *parents, leaf = path.split(".")
        branch = again
        for parent in parents:
            branch = branch.setdefault(parent, {})
        assert leaf not in branch
        branch[leaf] = value
    assert again == tree


def test_items_go_by_their_name_or_by_their_place():
    tree = {"arms": [{"name": "sine", "lr": 1}, {"lr": 2}, None], "pairs": [[1, 2], [3]], "seeds": [1, 2]}
    assert dict(leaves(tree)) == {
        "arms.sine.name": "sine",
        "arms.sine.lr": 1,
        "arms.1.lr": 2,
        "arms.2": None,
        "pairs.0": [1, 2],
        "pairs.1": [3],
        "seeds": [1, 2],
    }
