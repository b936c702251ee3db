"""sos, the Simple Object Storage: blob servers that keep bytes under names, and a stateless service in front of them.

A blob server (`blob_server.py`) speaks HTTP over any `BlobStore` (`blobs.py`). The API server (`upload.py`, `fetch.py`,
`api_server.py`) keeps nothing: a file's id is the SHA-1 of its bytes, and that alone finds it on the blob servers of
the configuration (`servers.py`). `replicate.py` brings every object to as many blob servers of its group as were asked
for. Blob servers of the original sos may be among them: all that is known of a server is what it answers.
"""
