"""The command line: each verb parses, calls the package that owns the matter, and prints."""
