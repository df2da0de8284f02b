"""Where a study's files lie: a folder, or an object store by its URI; whole files in, whole files out."""

from qsgd_ray.storage.storage import Folder, ObjectStore, Storage, StorageError, is_hanging, storage_at

__all__ = ["Folder", "ObjectStore", "Storage", "StorageError", "is_hanging", "storage_at"]
