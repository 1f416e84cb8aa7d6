"""Events in the formats of others: DICOM audit messages over syslog, FHIR AuditEvent, CSV. Pure."""
