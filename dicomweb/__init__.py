"""Front door 2: DICOMweb over HTTP."""
