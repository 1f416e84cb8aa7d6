"""Front door 1: the DICOM network."""
