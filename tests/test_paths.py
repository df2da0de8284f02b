"""Dotted paths: every leaf has one, finds its value by it, and the tree can be made of its leaves again."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsgd_ray.paths import MISSING, differences, leaves, set_value, value_at

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


json_values = st.none() | st.booleans() | st.integers() | st.text("ab", max_size=2)
json_trees = st.recursive(
    json_values,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.just("name"), inner, max_size=3),
    max_leaves=10,
)


@given(trees)
def test_every_leaf_is_found_by_its_path_and_can_be_set(tree):
    for path, value in leaves(tree):
        assert value_at(tree, path) == value
        changed = copy.deepcopy(tree)
        set_value(changed, path, "new")
        assert value_at(changed, path) == "new"
        assert [(p, v) for p, v in leaves(changed) if p != path] == [(p, v) for p, v in leaves(tree) if p != path]


def test_items_are_found_by_their_name_and_by_their_index():
    tree = {"arms": [{"name": "sine", "lr": 1}, {"lr": 2}], "seeds": [5, 6]}
    assert [value_at(tree, path) for path in ("arms.sine.lr", "arms.0.lr", "arms.1.lr", "seeds.1")] == [1, 1, 2, 6]


@pytest.mark.parametrize(
    ("path", "parent", "key", "branch"),
    [
        ("frob", "", "frob", {"a": {"b": [1], "c": None}}),
        ("a.frob.x", "a", "frob", {"b": [1], "c": None}),
        ("a.b.1", "a.b", "1", [1]),
        ("a.b.-1", "a.b", "-1", [1]),
        ("a.b.0.x", "a.b.0", "x", 1),
        ("a.c.x", "a.c", "x", None),
    ],
)
def test_a_path_that_does_not_exist_says_where_it_ends(path, parent, key, branch):
    tree = {"a": {"b": [1], "c": None}}
    for use in (lambda: value_at(tree, path), lambda: set_value(tree, path, 0)):
        with pytest.raises(KeyError) as error:
            use()
        assert error.value.args == (path,)
        assert (error.value.parent, error.value.key, error.value.branch) == (parent, key, branch)
    assert tree == {"a": {"b": [1], "c": None}}


@given(json_trees, json_trees)
def test_trees_differ_where_they_differ(left, right):
    assert list(differences(left, left)) == []
    if json.dumps(left, sort_keys=True) != json.dumps(right, sort_keys=True) and left != right:
        assert list(differences(left, right))
    there, back = list(differences(left, right)), list(differences(right, left))
    assert sorted(path for path, *_ in there) == sorted(path for path, *_ in back)


def test_a_value_that_is_missing_is_no_null():
    assert list(differences({"a": None}, {"b": None})) == [("a", None, MISSING), ("b", MISSING, None)]
    assert repr(MISSING) == "MISSING"


def test_the_first_of_a_list_of_named_items_is_told_by_its_name():
    empty, full = {"claims": []}, {"claims": [{"name": "C1"}]}
    assert list(differences(empty, full)) == [("claims.C1", MISSING, {"name": "C1"})]
    assert list(differences(full, empty)) == [("claims.C1", {"name": "C1"}, MISSING)]
    assert list(differences({"claims": []}, {"claims": {}})) == [("claims", [], {})]
