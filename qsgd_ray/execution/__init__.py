"""Run trials on Ray: connect to a cluster or start one, group workers by Ray Train, stop and watch them."""
