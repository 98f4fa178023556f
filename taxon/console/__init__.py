"""The console: pages for people who would rather look. Asks one server over gRPC, and reads the folders it is given."""
