"""ABCI 2.0: how CometBFT asks an application to order and execute transactions, without any consensus of our own."""
