"""IPFS Cluster: pins of one hospital's Kubos, each study on as many of them as the policy asks."""
