"""Pure: what the bytes of DICOM mean."""
