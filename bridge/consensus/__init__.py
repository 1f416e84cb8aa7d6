"""CometBFT beside the node: its home made from the genesis and keys, its process kept running, its RPC asked."""
