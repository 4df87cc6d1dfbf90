"""Builders of Kubernetes objects: plain dicts from plain values. Pure."""
