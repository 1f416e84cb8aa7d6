"""The content store: blocks by CID."""
