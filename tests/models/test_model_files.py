"""Files of a model are data: what is planted in them is not run, and broken ones are refused in one line."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qsgd_ray.config import StudyError
from qsgd_ray.models.pretrained import load_pretrained

pytest.importorskip("transformers")


class Planted:
    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return (Path.write_text, (self.proof, "run"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model, tokenizer = load_pretrained("tiny", seed=1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def changed(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def code(folder, proof):
    (folder / "evil.py").write_text(f"open({str(proof)!r}, 'w').write('run')\nclass A: pass\n")


def bin_file(folder, proof):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Planted(proof)))


def bin_beside_an_empty_file(folder, proof):
    torch.save({"a": Planted(proof)}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "other.safetensors")


def own_model(folder, proof):
    code(folder, proof)
    changed(
        folder / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.A", "AutoModelForCausalLM": "evil.A"}
    )


def own_tokenizer(folder, proof):
    code(folder, proof)
    changed(folder / "tokenizer_config.json", tokenizer_class="Evil", auto_map={"AutoTokenizer": ["evil.A", None]})


def kernels(folder, proof):
    changed(folder / "config.json", _attn_implementation="somebody/attention")


def kernels_within(folder, proof):
    changed(folder / "config.json", text_config={"attn_implementation": "somebody/attention@v1:f"})


def torn(folder, proof):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])


def no_json(folder, proof):
    (folder / "config.json").write_text("[1")


def a_text_for_a_size(folder, proof):
    changed(folder / "config.json", hidden_size="x")


def broken_tokenizer(folder, proof):
    (folder / "tokenizer.json").write_text("{")


def a_weight_less(folder, proof):
    weights = load_file(folder / "model.safetensors")
    weights.pop(sorted(weights)[0])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


PLANTED = {
    bin_file: "a folder without model.safetensors",
    bin_beside_an_empty_file: "cannot be read (",
    own_model: "cannot be read (",
    own_tokenizer: "cannot be read (",
    kernels: "_attn_implementation names code, 'somebody/attention'",
    kernels_within: "attn_implementation names code, 'somebody/attention@v1:f'",
    torn: "cannot be read (",
    no_json: "cannot be read (",
    a_text_for_a_size: "cannot be read (",
    broken_tokenizer: "cannot be read (",
    a_weight_less: "whose files lack 2 weights, lm_head.weight among them",
}


@pytest.mark.parametrize("change", PLANTED, ids=lambda change: change.__name__)
def test_what_is_planted_or_broken_is_refused_in_one_line(change, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a short name, so that only this package's words are counted
    shutil.copytree(whole, "m")
    proof = tmp_path / "proof"
    change(Path("m"), proof)
    with pytest.raises(StudyError) as error:
        load_pretrained("./m")
    assert PLANTED[change] in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) <= 300
    assert not proof.exists()


def test_nobody_is_asked_on_the_terminal(whole, tmp_path, capsys):
    folder = tmp_path / "m"
    shutil.copytree(whole, folder)
    own_model(folder, tmp_path / "proof")
    with pytest.raises(StudyError):
        load_pretrained(str(folder))
    assert "[y/N]" not in capsys.readouterr().out


def test_a_whole_folder_is_read(whole):
    assert load_pretrained(str(whole)).model.training


def test_loading_is_silent_and_a_drawn_head_is_said_once(whole, tmp_path, capfd, caplog):
    folder = tmp_path / "said"
    shutil.copytree(whole, folder)
    capfd.readouterr()
    for seed in (1, 2):
        load_pretrained(str(folder), seed=seed)
        load_pretrained(str(folder), seed=seed, n_classes=3)
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == [f"{folder}: its files lack score.weight; each trial draws it from its seed"]


def test_weights_of_other_shapes_are_refused_with_both(whole, tmp_path, capfd):
    folder = tmp_path / "wide"
    shutil.copytree(whole, folder)
    config = json.loads((folder / "config.json").read_text())
    sizes = config["hidden_size"], config["intermediate_size"]
    changed(folder / "config.json", intermediate_size=2 * sizes[1])
    capfd.readouterr()
    said = f"mlp.down_proj.weight has the shape {sizes[0]} x {sizes[1]}, and {sizes[0]} x {2 * sizes[1]} by config.json"
    with pytest.raises(StudyError, match=said) as refused:
        load_pretrained(str(folder))
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")
