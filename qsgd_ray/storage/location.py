"""From a word to a storage: a folder's path or the URI of an object store in, a `Storage` out."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from qsgd_ray.config import StudyError
from qsgd_ray.storage.base import Storage
from qsgd_ray.storage.folder import Folder
from qsgd_ray.storage.object_store import ObjectStore

# Two letters at least: C:/ is a drive.
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")


def storage_at(where: str | Path | Storage, option: str = "--storage") -> Storage:
    """Return the storage that a path or a URI names.

    Args:
        where: a folder; or a URI: `file:///DIR`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `abfs://`, `hdfs://` and
            their like. A `Path` is a folder whatever it looks like, and a storage is returned as it is.
        option: the option or argument that an error names.

    Returns:
        A `Folder` or an `ObjectStore`. Nothing is created, and no store is contacted.

    Raises:
        StudyError: the URI has an unknown scheme, no bucket, or a secret in it. Credentials come from the environment.

    Example:
        >>> str(storage_at("s3://bucket/studies") / "quick")
        's3://bucket/studies/quick'
    """
    if isinstance(where, Path):
        return Folder(where)
    if not isinstance(where, str):
        return where
    uri = _URI.match(where)
    if uri is None:
        return Folder(Path(where))
    scheme = uri[1].lower()
    try:
        parts = urlsplit(where)
        secret = parts.password
    except ValueError as error:  # an IPv6 address that is none
        raise StudyError(f"{option}: got {where}; allowed: a folder or a URI ({error})") from None
    if secret is not None:
        raise StudyError(
            f"{option}: got {scheme}://... with a secret in it; allowed: a URI without, as it is kept and shown "
            "(credentials come from the environment, e.g. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
        )
    if scheme == "file":
        return Folder(Path(unquote(parts.path)))
    schemes = (*ObjectStore.bucket_schemes, *ObjectStore.renaming_schemes)
    if scheme not in schemes:
        known = ", ".join(f"{scheme}://" for scheme in ("file", *schemes))
        raise StudyError(f"{option}: got {where}; allowed: a folder, or a URI that begins with one of {known}")
    if not parts.netloc and scheme in ObjectStore.bucket_schemes:
        raise StudyError(f"{option}: got {where}; allowed: {scheme}://BUCKET/PREFIX")
    return ObjectStore(parts)
