"""Protocols, methods and entry points: the only room that knows pluggy. It computes nothing."""
