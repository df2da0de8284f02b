"""Helpers that several tests share: small studies and results, naive twins, stores, processes, a browser. No tests."""
