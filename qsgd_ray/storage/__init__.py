"""Storage of a study's files: a folder, or an object store by its URI; whole files in, whole files out.

`storage_at(where)` returns either. `replacing` puts a file or a folder into place whole. `storage/cache.py` keeps data
sets and models that are made once for all studies of a machine.
"""

from qsgd_ray.storage._atomic import replacing
from qsgd_ray.storage.base import Storage, StorageError
from qsgd_ray.storage.folder import Folder
from qsgd_ray.storage.lease import Holder, Lease, held, holder, refused_unless_written
from qsgd_ray.storage.location import storage_at
from qsgd_ray.storage.object_store import ObjectStore, has_open_request
from qsgd_ray.storage.refusal import refused, shown

__all__ = [
    "Folder",
    "Holder",
    "Lease",
    "ObjectStore",
    "Storage",
    "StorageError",
    "has_open_request",
    "held",
    "holder",
    "refused",
    "refused_unless_written",
    "replacing",
    "shown",
    "storage_at",
]
