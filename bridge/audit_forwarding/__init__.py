"""Every event of the ledger as a DICOM audit message to a configured audit repository, by syslog over TLS."""
