"""The protocol behind which circuits are answered, and its implementations in this process."""
