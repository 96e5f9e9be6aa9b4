"""Measurements: of single functions here, of whole proxies beside each other elsewhere."""
