"""A folder that PYTHONPATH names, so that Python finds the module in it by itself."""
