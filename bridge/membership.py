"""A node's part in a consortium, as the console shows it and acts on it."""

from __future__ import annotations


class Membership:
    """What the doors are given of the consortium (`dicomweb.node.Membership`)."""
