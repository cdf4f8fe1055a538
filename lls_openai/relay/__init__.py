"""The way of one request, in the order it goes; `app.py` calls the others in turn."""
