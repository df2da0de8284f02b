"""The protocol of everything that answers circuits, and its implementations in this process."""
