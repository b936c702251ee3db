"""LMDB as files: what whoever keeps an environment has to know of what it maps into memory."""
