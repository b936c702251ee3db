"""The console script `sos`: blob servers, the API server, replication, under the names and flags of the original."""
