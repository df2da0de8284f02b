"""What several tests need: small studies and results, naive twins, stores, processes, a browser. No tests."""
