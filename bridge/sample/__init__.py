"""A sample study, made by code and sent as a modality would."""
