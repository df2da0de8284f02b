"""A word names a folder or an object store, or is refused in one line that repeats no secret."""

from pathlib import Path

import pytest

from qsgd_ray.config import StudyError
from qsgd_ray.storage import Folder, storage_at


@pytest.mark.parametrize(
    ("word", "place"),
    [
        ("results", Path("results")),
        ("/a/b c", Path("/a/b c")),
        ("C:/results", Path("C:/results")),
        ("file:///a/b%20c", Path("/a/b c")),
        (Path("s3:/no/uri"), Path("s3:/no/uri")),
    ],
)
def test_a_folder_is_a_folder(word, place):
    found = storage_at(word)
    assert isinstance(found, Folder)
    assert found.location() == place
    assert (found / "below").location("file") == place / "below" / "file"


def test_a_uri_keeps_its_question_behind_the_names_that_are_put_below():
    place = storage_at("s3://bucket/some%20prefix/?region=eu-west-1") / "my study"
    assert str(place) == "s3://bucket/some%20prefix/my%20study?region=eu-west-1"
    assert place.location("report.html") == "s3://bucket/some%20prefix/my%20study/report.html?region=eu-west-1"
    assert storage_at(place) is place
    assert str(storage_at("gs://bucket") / "small") == "gs://bucket/small"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("ftp://host/x", "got ftp://host/x; allowed: a folder, or a URI that begins with one of file://, s3://, gs://"),
        ("s3:///x", "got s3:///x; allowed: s3://BUCKET/PREFIX"),
        ("gs:/bucket/x", "got gs:/bucket/x; allowed: gs://BUCKET/PREFIX"),
        ("s3://[bucket/x", "got s3://[bucket/x; allowed: a folder or a URI (Invalid IPv6 URL)"),
        ("s3://key:secret@bucket/x", "got s3://... with a secret in it; allowed: a URI without"),
    ],
)
def test_a_word_that_names_no_storage_is_one_line_and_no_secret_is_repeated(word, said):
    with pytest.raises(StudyError) as error:
        storage_at(word, "DIR")
    assert str(error.value).startswith(f"DIR: {said}")
    assert "\n" not in str(error.value)
    assert "key:secret" not in str(error.value)
