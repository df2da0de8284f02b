"""All files of the clusters: named by their README, free of science, of one version of Ray."""

import re
import subprocess

import pytest
from support.cluster_files import CLUSTER, FILES, ROOT, names

RAY = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]


def test_readme_names_every_file_and_every_file_it_names_is_there():
    text = (CLUSTER / "README.md").read_text()
    for file in names(FILES):
        assert file == "README.md" or file in text, f"the README does not name {file}"
    # In the text's own words, from the root or from cluster/.
    named = set(re.findall(r"(?<![\w./:-])((?:cluster|studies|qsgd_ray)/[\w./-]+\.\w+)", text))
    links = set(re.findall(r"\]\((?!https?:)([^)#]+)\)", text))
    assert named
    assert links
    missing = [name for name in named if not (ROOT / name).exists()]
    missing += [name for name in links if not (CLUSTER / name).exists()]
    assert not missing


@pytest.mark.parametrize("file", FILES, ids=names(FILES))
def test_no_science_lies_in_the_clusters(file):
    text = file.read_text()
    science = r"lambda_|learning_rate|\bseeds?\b|n_qubits|weight_decay|\bepochs\b|\bmargin\b|trials_per_arm"
    assert not re.findall(science, text if file.suffix != ".md" else ""), "that belongs in a study"


def test_one_version_of_ray_everywhere():
    found = {}
    for file in FILES:
        patterns = (
            r"rayproject/ray:(\d[\w.]*)",
            r"qsgd-ray:(\d[\w.]*)",
            r'rayVersion: "([^"]+)"',
            r"ray\[\w+\]==([\d.]+)",
        )
        for version in (hit for pattern in patterns for hit in re.findall(pattern, file.read_text())):
            found.setdefault(version, set()).add(str(file.relative_to(CLUSTER)))
    assert set(found) == {RAY}, found
    assert len(found[RAY]) >= 5


def test_shell_scripts_are_bash():
    scripts = [file for file in FILES if file.suffix in (".sh", ".sbatch")]
    assert scripts
    for script in scripts:
        subprocess.run(["bash", "-n", str(script)], check=True)
        first, text = script.read_text().split("\n", 1)
        assert first == "#!/bin/bash"
        assert "set -euo pipefail" in text
