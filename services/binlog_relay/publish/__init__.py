"""Records in the DMS format, packed and sent to SQS."""
