"""A hospital's node: DICOM in, IPFS out."""
