"""Kubernetes objects: read into views, compared, and built as plain dicts. Pure."""
