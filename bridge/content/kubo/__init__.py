"""Kubo, the IPFS implementation that is run as a daemon: its RPC, its configuration, its process."""
